//! What is inserted: the sidecar, its volumes and its `ConfigMap`.

use super::fingerprint;
use super::layout::{Insertion, Layout, string};
use super::proxy_file::{CONFIG_FOLDER, ProxyFile, RUN_FOLDER, TLS_FOLDER};
use super::record::{ANNOTATION, InjectRecord};

/// The sidecar's name.
pub(super) const SIDECAR: &str = "pulsegate";
/// The user and group of the image.
pub(super) const USER: &str = "65532";
/// The name of the sidecar's port of health and metrics.
pub(super) const HEALTH_PORT: &str = "pulsegate";

/// The Secret with the certificate, unless another one is named.
pub(super) const DEFAULT_SECRET: &str = "pulsegate-tls";

const CONFIG_VOLUME: &str = "pulsegate-config";
const TLS_VOLUME: &str = "pulsegate-tls";
const RUN_VOLUME: &str = "pulsegate-run";

/// The names of all volumes that are inserted.
pub(super) const VOLUMES: [&str; 3] = [CONFIG_VOLUME, TLS_VOLUME, RUN_VOLUME];

/// The facts that differ between two sidecars.
#[derive(Clone, Copy, Debug)]
pub(super) struct SidecarFacts<'a> {
    pub(super) image: &'a str,
    pub(super) file: &'a ProxyFile,
    /// The name of the clients' port.
    pub(super) port_name: &'a str,
    /// The name of the `ConfigMap`.
    pub(super) config_map: &'a str,
    /// The name of the Secret.
    pub(super) secret: &'a str,
}

/// Returns the sidecar as an item of `initContainers`.
pub(super) fn container(facts: &SidecarFacts<'_>) -> Insertion {
    let text = |text: &str| Insertion::inline(text);
    let port = |name: &str, port: u16| {
        Insertion::mapping([
            ("name", text(name)),
            ("containerPort", Insertion::Inline(port.to_string())),
            ("protocol", text("TCP")),
        ])
    };
    let probe = |path: &str, period: &str, failures: &str| {
        let target =
            Insertion::mapping([("path", text(path)), ("port", Insertion::Inline(facts.file.health.to_string()))]);
        Insertion::mapping([("httpGet", target), ("periodSeconds", text(period)), ("failureThreshold", text(failures))])
    };
    let mount = |name: &str, path: &str| {
        let entries = vec![("name", text(name)), ("mountPath", text(path)), ("readOnly", text("true"))];
        let is_read_only = name != RUN_VOLUME;
        let kept = entries.into_iter().filter(|(key, _)| is_read_only || *key != "readOnly");
        Insertion::Mapping(kept.map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let mounts = volume_names(facts.file).into_iter().map(|name| match name {
        CONFIG_VOLUME => mount(name, CONFIG_FOLDER),
        TLS_VOLUME => mount(name, TLS_FOLDER),
        _ => mount(name, RUN_FOLDER),
    });
    let command = Insertion::mapping([("command", text("[\"/pulsegate\", \"drain\", \"--wait\"]"))]);
    Insertion::mapping([
        ("name", text(SIDECAR)),
        ("image", Insertion::Inline(string(facts.image))),
        ("args", text(&format!("[\"run\", \"-c\", \"{CONFIG_FOLDER}/proxy.toml\"]"))),
        ("restartPolicy", text("Always")),
        (
            "ports",
            Insertion::Sequence(vec![port(facts.port_name, facts.file.port), port(HEALTH_PORT, facts.file.health)]),
        ),
        ("startupProbe", probe("/startupz", "1", "60")),
        ("livenessProbe", probe("/livez", "10", "3")),
        ("readinessProbe", probe("/readyz", "5", "2")),
        ("lifecycle", Insertion::mapping([("preStop", Insertion::mapping([("exec", command)]))])),
        (
            "resources",
            Insertion::mapping([
                ("requests", Insertion::mapping([("cpu", text("100m")), ("memory", text("64Mi"))])),
                ("limits", Insertion::mapping([("memory", text("256Mi"))])),
            ]),
        ),
        (
            "securityContext",
            Insertion::mapping([
                ("runAsUser", text(USER)),
                ("runAsGroup", text(USER)),
                ("runAsNonRoot", text("true")),
                ("allowPrivilegeEscalation", text("false")),
                ("readOnlyRootFilesystem", text("true")),
                ("capabilities", Insertion::mapping([("drop", text("[\"ALL\"]"))])),
                ("seccompProfile", Insertion::mapping([("type", text("RuntimeDefault"))])),
            ]),
        ),
        ("volumeMounts", Insertion::Sequence(mounts.collect())),
    ])
}

/// Returns the volumes, each with its name.
pub(super) fn volumes(facts: &SidecarFacts<'_>) -> Vec<(&'static str, Insertion)> {
    let text = |text: &str| Insertion::inline(text);
    let volume = |name| {
        let source = match name {
            CONFIG_VOLUME => ("configMap", Insertion::mapping([("name", Insertion::Inline(string(facts.config_map)))])),
            TLS_VOLUME => {
                let secret = Insertion::Inline(string(facts.secret));
                ("secret", Insertion::mapping([("secretName", secret), ("defaultMode", text("0440"))]))
            }
            _ => ("emptyDir", Insertion::mapping([("medium", text("Memory")), ("sizeLimit", text("1Mi"))])),
        };
        (name, Insertion::mapping([("name", text(name)), source]))
    };
    volume_names(facts.file).into_iter().map(volume).collect()
}

fn volume_names(file: &ProxyFile) -> Vec<&'static str> {
    VOLUMES.into_iter().filter(|name| file.has_tls || *name != TLS_VOLUME).collect()
}

/// Returns the document of the `ConfigMap`, from its `---`.
pub(super) fn config_map(
    name: &str,
    namespace: Option<&str>,
    file: &ProxyFile,
    newline: bool,
    ending: &'static str,
) -> String {
    let layout = Layout { step: 2, dash: 0, item: 2, ending };
    let data = Insertion::mapping([("proxy.toml", Insertion::Literal(file.text.clone()))]);
    let mut record = InjectRecord { document: true, newline, ..InjectRecord::new() };
    record.now.extend(fingerprint::of_insertion(&layout, &data).ok().map(|sum| ("data".to_owned(), sum)));
    let mut metadata = vec![("name".to_owned(), Insertion::Inline(string(name)))];
    metadata.extend(namespace.map(|namespace| ("namespace".to_owned(), Insertion::Inline(string(namespace)))));
    metadata.push(("annotations".to_owned(), Insertion::mapping([(ANNOTATION, Insertion::Inline(record.scalar()))])));
    let lines = [
        ("apiVersion", Insertion::inline("v1")),
        ("kind", Insertion::inline("ConfigMap")),
        ("metadata", Insertion::Mapping(metadata)),
        ("data", data),
    ];
    let lines: String = lines.iter().map(|(key, value)| layout.entry(0, key, value)).collect();
    format!("---{ending}{lines}")
}
