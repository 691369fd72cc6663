//! The pod of a workload, as far as the injection reads it.

use super::error::InjectError;
use super::objects::ManifestObject;
use super::options::InjectOptions;
use super::tree::YamlNode;

/// The ports that a sidecar tries for clients behind an ingress, if the app has the first.
const PLAIN_PORTS: [u16; 3] = [8080, 8081, 8082];
/// The port for clients with TLS.
const TLS_PORT: u16 = 8443;

/// A pod's specification.
#[derive(Debug)]
pub(super) struct PodView<'a> {
    pub(super) spec: &'a YamlNode,
    /// The app's containers, never none.
    pub(super) containers: Vec<&'a YamlNode>,
    /// The ports of all containers.
    pub(super) ports: Vec<PodPort<'a>>,
}

/// A port that a container declares.
#[derive(Clone, Copy, Debug)]
pub(super) struct PodPort<'a> {
    pub(super) name: Option<&'a str>,
    pub(super) number: u16,
    container: &'a str,
    line: usize,
    /// Whether the node has a port that leads to it.
    pub(super) has_host_port: bool,
    /// Whether it is a TCP port of an app container.
    is_of_app: bool,
}

impl<'a> PodView<'a> {
    /// Reads the pod of a workload.
    ///
    /// # Errors
    ///
    /// It has no containers, or it uses the network of its node.
    pub(super) fn of(object: ManifestObject<'a>) -> Result<Self, InjectError> {
        let path = object.pod_path().unwrap_or_default();
        let spec = path.iter().try_fold(object.root, |node, key| node.get(key));
        let spec = spec.ok_or_else(|| {
            InjectError::at(object.root.line, format!("{} has no {}", object.title(), path.join(".")))
        })?;
        let listed = |key| spec.get(key).map(YamlNode::items).unwrap_or_default().iter().map(|item| &**item);
        let containers: Vec<_> = listed("containers").collect();
        if containers.is_empty() {
            return Err(InjectError::at(
                spec.line,
                format!("{} has no containers; write the app's container first", object.title()),
            ));
        }
        for (at, container) in containers.iter().enumerate() {
            let name = container.text_at(&["name"]);
            if name.is_some() && containers[..at].iter().any(|other| other.text_at(&["name"]) == name) {
                return Err(InjectError::at(
                    container.line,
                    format!("{} has two containers named {}; rename one", object.title(), name.unwrap_or_default()),
                ));
            }
        }
        if let Some(flag) = spec.entry("hostNetwork").filter(|flag| flag.value.text() == Some("true")) {
            return Err(InjectError::at(
                flag.key.line,
                format!(
                    "{} uses the network of its node (hostNetwork), where the sidecar's ports would be the node's; remove hostNetwork",
                    object.title()
                ),
            ));
        }
        if let Some(os) = spec.get("os").and_then(|os| os.entry("name")).filter(|os| os.value.text() == Some("windows"))
        {
            return Err(InjectError::at(
                os.key.line,
                format!(
                    "{} runs on Windows, and pulsegate's image on Linux only; leave it out with --only",
                    object.title()
                ),
            ));
        }
        let of_app = containers.iter().flat_map(|container| ports(container, true));
        let all = of_app.chain(listed("initContainers").flat_map(|container| ports(container, false)));
        let ports = all.collect();
        Ok(Self { spec: spec.resolved(), containers, ports })
    }

    /// Returns the app's port: the one that is asked for, or the only one that is declared and to which Services
    /// lead; `served` are the ports of the latter.
    ///
    /// # Errors
    ///
    /// There is none, or it is not clear which one is meant.
    pub(super) fn app_port(
        &self,
        object: ManifestObject<'_>,
        mut served: Vec<u16>,
        options: &InjectOptions,
    ) -> Result<u16, InjectError> {
        if let Some(port) = options.port {
            return Ok(port);
        }
        let mut own: Vec<u16> = self.ports.iter().filter(|port| port.is_of_app).map(|port| port.number).collect();
        for list in [&mut own, &mut served] {
            list.sort_unstable();
            list.dedup();
        }
        let line = self.spec.line;
        let other = "; pass --port, or name the workloads that get a sidecar with --only KIND/NAME";
        let mut known = match (own.is_empty(), served.is_empty()) {
            (false, false) => own.iter().copied().filter(|port| served.contains(port)).collect(),
            (false, true) => own.clone(),
            (true, _) => served.clone(),
        };
        if let [port] = known[..] {
            return Ok(port);
        }
        if known.is_empty() {
            known = [own, served].concat();
            known.sort_unstable();
        }
        if known.is_empty() {
            let what = format!("{} declares no containerPort, so the app's port is not known{other}", object.title());
            return Err(InjectError::at(line, what));
        }
        let listed: Vec<String> = known.iter().map(ToString::to_string).collect();
        let listed = listed.join(", ");
        Err(InjectError::at(
            line,
            format!("{} has several ports ({listed}), and one of them serves the WebSockets{other}", object.title()),
        ))
    }

    /// Returns the port for clients, one that no container has.
    pub(super) fn client_port(&self, upstream: u16, is_plain: bool) -> u16 {
        let is_taken = |port: u16| port == upstream || self.ports.iter().any(|other| other.number == port);
        if is_plain {
            PLAIN_PORTS.into_iter().find(|port| !is_taken(*port)).unwrap_or(PLAIN_PORTS[0])
        } else {
            TLS_PORT
        }
    }

    /// Refuses a port of the sidecar that a container or the app has.
    pub(super) fn refuse_taken(&self, port: u16, upstream: u16, key: &str) -> Result<(), InjectError> {
        let taken = self.ports.iter().find(|other| other.number == port);
        let (line, owner) = match taken {
            Some(PodPort { line, container, .. }) => (*line, format!("container {container}")),
            None if port == upstream => (self.spec.line, "the app".to_owned()),
            None => return Ok(()),
        };
        Err(InjectError::at(
            line,
            format!(
                "{owner} has the port {port}, which the sidecar needs, and containers of a pod share their ports; move the app, or pass --config with another {key}"
            ),
        ))
    }
}

fn ports(container: &YamlNode, is_app: bool) -> impl Iterator<Item = PodPort<'_>> {
    let name = container.text_at(&["name"]).unwrap_or_default();
    let listed = container.get("ports").map(YamlNode::items).unwrap_or_default();
    listed.iter().filter_map(move |port| {
        let is_tcp = port.text_at(&["protocol"]).is_none_or(|protocol| protocol == "TCP");
        Some(PodPort {
            name: port.text_at(&["name"]),
            number: port.text_at(&["containerPort"])?.parse().ok().filter(|_| is_tcp)?,
            container: name,
            line: port.line,
            has_host_port: port.text_at(&["hostPort"]).is_some(),
            is_of_app: is_app,
        })
    })
}
