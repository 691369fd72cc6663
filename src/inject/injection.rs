//! One injection: its workloads one after another, the Services that lead to them, and the `ConfigMap`s at the end.

use super::edits::{TextEdits, line_ending};
use super::error::InjectError;
use super::network_policies;
use super::objects::ManifestObject;
use super::options::InjectOptions;
use super::pod::PodView;
use super::proxy_file::ProxyFile;
use super::services::{self, ServiceTarget};
use super::sidecar::{self, HEALTH_PORT, SidecarFacts};
use super::tree::YamlNode;
use super::workload;

/// A manifest that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedManifest {
    /// Its text.
    pub text: String,
    /// One line for each workload that was changed.
    pub changed: Vec<String>,
    /// What a person should know or do.
    pub notes: Vec<String>,
}

/// The changes of a manifest so far.
#[derive(Debug)]
pub(super) struct Injection<'a> {
    text: &'a str,
    objects: &'a [ManifestObject<'a>],
    options: &'a InjectOptions,
    edits: TextEdits,
    /// The workloads that have got a sidecar.
    workloads: Vec<&'a YamlNode>,
    /// The Services that were changed, each with the ports of app and sidecar.
    services: Vec<(ManifestObject<'a>, [u16; 2])>,
    /// The `ConfigMap`s to be appended: name, namespace, and the file.
    config_maps: Vec<(String, Option<&'a str>, ProxyFile)>,
    changed: Vec<String>,
    notes: Vec<String>,
}

impl<'a> Injection<'a> {
    pub(super) fn of(text: &'a str, objects: &'a [ManifestObject<'a>], options: &'a InjectOptions) -> Self {
        Self {
            text,
            objects,
            options,
            edits: TextEdits::default(),
            workloads: Vec::new(),
            services: Vec::new(),
            config_maps: Vec::new(),
            changed: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds the changes for one workload.
    pub(super) fn add(&mut self, workload: ManifestObject<'a>) -> Result<(), InjectError> {
        let title = workload.title();
        let unnamed = || InjectError::at(workload.root.line, format!("{title}; write metadata.name"));
        let name = workload.name().ok_or_else(unnamed)?;
        let pod = PodView::of(workload)?;
        let targets = ServiceTarget::all(self.objects, workload);
        let file = proxy_file(workload, &pod, &targets, self.options)?;
        let config_map = format!("{name}-pulsegate");
        self.add_config_map(workload, &config_map, &file)?;
        let secret = self.options.tls_secret.as_deref().unwrap_or(sidecar::DEFAULT_SECRET);
        let facts = SidecarFacts {
            image: &self.options.image,
            file: &file,
            port_name: port_name(&pod, &file),
            config_map: &config_map,
            secret,
        };
        let times = workload::inject(self.text, workload, &pod, &facts, self.options, &mut self.edits)?;
        self.workloads.push(workload.root);
        self.changed.push(format!(
            "{title}: app port {}, preStop sleep {} s, grace period {} s",
            file.upstream, times.sleep_s, times.grace_s
        ));
        if !self.redirect_services(&targets, &pod, &file)? {
            self.notes.push(format!(
                "no Service in this input leads to port {} of {title}; let yours lead to targetPort {}",
                file.upstream, file.port
            ));
        }
        if let Some(policy) = network_policies::blocking(self.objects, workload, file.port, facts.port_name) {
            self.notes.push(format!(
                "{} selects {title} and does not admit port {}, the sidecar's; admit it instead of port {}, and port {} for Prometheus",
                policy.title(), file.port, file.upstream, file.health
            ));
        }
        if pod.ports.iter().any(|port| port.number == file.upstream && port.has_host_port) {
            self.notes.push(format!(
                "{title} has a hostPort for port {}, through which clients bypass the sidecar; remove it",
                file.upstream
            ));
        }
        if let Some(port) = file.redirect {
            self.notes.push(format!(
                "listen.redirect is port {port} of {title}, to which inject leads no Service; add a port with targetPort {port} to yours"
            ));
        }
        if file.has_tls {
            let namespace = workload.namespace().map(|namespace| format!(" -n {namespace}")).unwrap_or_default();
            self.notes.push(format!(
                "{title} needs the Secret {secret}: kubectl create secret tls {secret}{namespace} --cert=tls.crt --key=tls.key, or a \
                 Certificate of cert-manager"
            ));
        }
        Ok(())
    }

    /// Returns the manifest with all changes; `newline` if the end of its last line was added.
    pub(super) fn finish(mut self, newline: bool) -> ChangedManifest {
        let ending = line_ending(self.text);
        let last = self.config_maps.len().saturating_sub(1);
        // The last one alone ends the text again when it is removed.
        let appended = self.config_maps.iter().enumerate().map(|(at, (name, namespace, file))| {
            sidecar::config_map(name, *namespace, file, newline && at == last, ending)
        });
        self.edits.insert(self.text.len(), 0, appended.collect());
        for (service, _) in &self.services {
            let others =
                self.objects.iter().filter(|object| !self.workloads.iter().any(|own| std::ptr::eq(*own, object.root)));
            let selected = others.filter(|object| {
                ServiceTarget::all(&[*service], **object)
                    .iter()
                    .any(|target| std::ptr::eq(target.service.root, service.root))
            });
            self.notes.extend(
                selected
                    .map(|other| format!("{} selects {} too, which has no sidecar", service.title(), other.title())),
            );
        }
        ChangedManifest { text: self.edits.apply(self.text), changed: self.changed, notes: self.notes }
    }

    /// Moves the ports of Services that lead to the app; returns whether there are any.
    fn redirect_services(
        &mut self,
        targets: &[ServiceTarget<'a>],
        pod: &PodView<'_>,
        file: &ProxyFile,
    ) -> Result<bool, InjectError> {
        let mut is_served = false;
        for service in self.objects.iter().copied().filter(|object| object.is("v1", "Service")) {
            let own = |target: &&ServiceTarget<'_>| std::ptr::eq(target.service.root, service.root);
            let targets: Vec<_> = targets.iter().filter(own).copied().collect();
            if !targets.iter().any(|target| target.resolve(pod) == Some(file.upstream)) {
                continue;
            }
            is_served = true;
            // One Service may select several workloads.
            let ports = [file.upstream, file.port];
            match self.services.iter().find(|(other, _)| std::ptr::eq(other.root, service.root)) {
                None => self.notes.extend(services::redirect(self.text, &targets, pod, file, &mut self.edits)?),
                Some((_, others)) if *others == ports => continue,
                Some(_) => {
                    let what = "selects workloads with different ports; write a Service for each";
                    return Err(InjectError::at(service.root.line, format!("{} {what}", service.title())));
                }
            }
            self.services.push((service, ports));
        }
        Ok(is_served)
    }

    /// Notes a `ConfigMap` to be appended; two workloads of the same name share one if they can.
    fn add_config_map(
        &mut self,
        workload: ManifestObject<'a>,
        name: &str,
        file: &ProxyFile,
    ) -> Result<(), InjectError> {
        let namespace = workload.namespace();
        refuse_config_map(self.objects, name, namespace)?;
        match self.config_maps.iter().find(|(other, of, _)| other == name && *of == namespace) {
            None => self.config_maps.push((name.to_owned(), namespace, file.clone())),
            Some((_, _, other)) if other == file => {}
            Some(_) => {
                let what = format!(
                    "{} would share the ConfigMap {name} with another workload of its name, and needs another one; inject both with one --config, or rename one",
                    workload.title()
                );
                return Err(InjectError::at(workload.root.line, what));
            }
        }
        Ok(())
    }
}

fn proxy_file(
    workload: ManifestObject<'_>,
    pod: &PodView<'_>,
    services: &[ServiceTarget<'_>],
    options: &InjectOptions,
) -> Result<ProxyFile, InjectError> {
    let file = match &options.config {
        Some(file) => file.clone(),
        None => {
            let served = services.iter().filter_map(|service| service.resolve(pod)).collect();
            let upstream = pod.app_port(workload, served, options)?;
            let port = pod.client_port(upstream, options.plain.is_some());
            pod.refuse_taken(port, upstream, "listen.address")?;
            ProxyFile::made(upstream, port, options.plain.as_deref())?
        }
    };
    pod.refuse_taken(file.port, file.upstream, "listen.address")?;
    pod.refuse_taken(file.health, file.upstream, "admin.health")?;
    if let Some(port) = file.redirect {
        pod.refuse_taken(port, file.upstream, "listen.redirect")?;
    }
    Ok(file)
}

fn refuse_config_map(objects: &[ManifestObject<'_>], name: &str, namespace: Option<&str>) -> Result<(), InjectError> {
    let is_same = |object: &&ManifestObject<'_>| {
        object.is("v1", "ConfigMap") && object.name() == Some(name) && object.namespace() == namespace
    };
    match objects.iter().find(is_same) {
        Some(existing) => Err(InjectError::at(
            existing.root.line,
            format!(
                "there is a ConfigMap {name} already, which inject would add; pass its proxy.toml with --config and remove it here"
            ),
        )),
        None => Ok(()),
    }
}

/// Returns a name for the clients' port that no container has for its own.
fn port_name(pod: &PodView<'_>, file: &ProxyFile) -> &'static str {
    let (usual, other) = if file.has_tls { ("https", "pulsegate-https") } else { ("http", "pulsegate-http") };
    debug_assert_ne!(usual, HEALTH_PORT);
    if pod.ports.iter().any(|port| port.name == Some(usual)) { other } else { usual }
}
