//! Services that lead to a workload: their ports are moved to the sidecar.

use super::editor::ObjectEditor;
use super::edits::{TextEdits, line_ending};
use super::error::InjectError;
use super::layout::{Insertion, Layout};
use super::objects::ManifestObject;
use super::pod::PodView;
use super::proxy_file::ProxyFile;
use super::record::InjectRecord;
use super::tree::YamlNode;

/// One port of a Service that selects a workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServiceTarget<'a> {
    pub(super) service: ManifestObject<'a>,
    port: &'a YamlNode,
}

impl<'a> ServiceTarget<'a> {
    /// Returns the TCP ports of all Services that select a workload.
    pub(super) fn all(objects: &[ManifestObject<'a>], workload: ManifestObject<'a>) -> Vec<Self> {
        let Some(labels) = workload.pod_labels() else { return Vec::new() };
        let mut found = Vec::new();
        for service in objects.iter().copied().filter(|object| object.is("v1", "Service")) {
            let Some(spec) = service.root.get("spec") else { continue };
            let selector = spec.get("selector").map(YamlNode::entries).unwrap_or_default();
            let selects = |entry: &super::tree::YamlEntry| {
                entry
                    .key
                    .text()
                    .is_some_and(|key| entry.value.text().is_some() && labels.text_at(&[key]) == entry.value.text())
            };
            if selector.is_empty() || service.namespace() != workload.namespace() || !selector.iter().all(selects) {
                continue;
            }
            let ports = spec.get("ports").map(YamlNode::items).unwrap_or_default();
            let is_tcp = |port: &YamlNode| port.text_at(&["protocol"]).is_none_or(|protocol| protocol == "TCP");
            found.extend(ports.iter().filter(|port| is_tcp(port)).map(|port| Self { service, port }));
        }
        found
    }

    /// Returns the port of the pod to which it leads.
    pub(super) fn resolve(&self, pod: &PodView<'_>) -> Option<u16> {
        let target = self.port.text_at(&["targetPort"]).or_else(|| self.port.text_at(&["port"]))?;
        let named = || pod.ports.iter().find(|port| port.name == Some(target)).map(|port| port.number);
        target.parse().ok().or_else(named)
    }

    fn number(&self) -> Option<u16> {
        self.port.text_at(&["port"])?.parse().ok()
    }
}

/// Moves the ports of one Service that lead to the app; `targets` are all those of the Service. Returns what a person
/// should know of it.
///
/// # Errors
///
/// The Service cannot be changed where it must be.
pub(super) fn redirect(
    text: &str,
    targets: &[ServiceTarget<'_>],
    pod: &PodView<'_>,
    file: &ProxyFile,
    edits: &mut TextEdits,
) -> Result<Vec<String>, InjectError> {
    let mut notes = Vec::new();
    let moved: Vec<_> = targets.iter().filter(|target| target.resolve(pod) == Some(file.upstream)).collect();
    let Some(first) = moved.first() else { return Ok(notes) };
    let object = first.service;
    let spec = object.root.get("spec").unwrap_or(object.root);
    let step = spec.column.checked_sub(object.root.column).filter(|step| *step > 0).unwrap_or(2);
    let layout = Layout { step, dash: 0, item: 2, ending: line_ending(text) };
    let mut editor = ObjectEditor { text, object, layout, edits, record: InjectRecord::new() };
    editor.block_mapping(object.root, &object.title())?;
    let spec = editor.block_mapping(spec, "spec")?;
    if let Some(ports) = spec.get("ports") {
        editor.block_sequence(ports, "ports")?;
    }
    let has_https = targets.iter().any(|target| target.number() == Some(443));
    let is_headless = spec.text_at(&["clusterIP"]) == Some("None");
    for target in &moved {
        let port = editor.block_mapping(target.port, "this port")?;
        let becomes_443 = file.has_tls && !is_headless && !has_https && target.number() == Some(80);
        let number = if becomes_443 { Some("443") } else { target.port.text_at(&["port"]) };
        let path = match (target.port.text_at(&["name"]), number) {
            (Some(name), _) => format!("spec/ports/{name}"),
            (None, number) => format!("spec/ports/port={}", number.unwrap_or_default()),
        };
        match port.entry("targetPort") {
            Some(entry) => editor.replace_scalar(entry, &format!("{path}/targetPort"), &file.port.to_string())?,
            None => editor.add_entry(port, &path, "targetPort", &Insertion::Inline(file.port.to_string())),
        }
        let (Some(number), true) = (target.number(), file.has_tls) else { continue };
        let title = object.title();
        if is_headless {
            notes.push(format!("{title} is headless: its clients connect to port {} of a pod themselves", file.port));
            continue;
        }
        if let Some(protocol) = port.text_at(&["appProtocol"]).filter(|protocol| *protocol != "https") {
            notes.push(format!(
                "{title}: appProtocol {protocol} of port {number} is no longer true, as the sidecar speaks TLS; write https, or inject with --plain"
            ));
        }
        match port.entry("port") {
            Some(entry) if becomes_443 => {
                editor.replace_scalar(entry, &format!("{path}/port"), "443")?;
                notes.push(format!("{title}: port 80 is now 443, as the sidecar speaks TLS"));
            }
            _ if number != 443 => {
                notes.push(format!(
                    "{title}: port {number} speaks TLS now (https, wss); behind an ingress, inject with --plain"
                ));
            }
            _ => {}
        }
    }
    editor.add_record()?;
    Ok(notes)
}
