//! The sidecar's injection into Kubernetes manifests: text in, text out.
//!
//! ```text
//! tree (positions of every node) → objects → workload, services → edits (insertions by position) → text
//!                                                   ↓
//!                                                 record → removal
//! ```
//!
//! Nothing is read or written here. Lines are inserted, and single scalars replaced; all other bytes stay as they are:
//! comments, order, indentation, line endings. An annotation of each changed object records what was done, so that
//! [`uninject`] gives the bytes back. [`inject`] begins with that, so that a second run replaces the first, and it tries its
//! own way back before it returns anything.

mod editor;
mod edits;
mod error;
mod layout;
mod objects;
mod options;
mod pod;
mod proxy_file;
mod record;
mod removal;
mod services;
mod sidecar;
mod tree;
mod workload;

#[cfg(test)]
mod tests;

pub use error::InjectError;
pub use options::{DEFAULT_IMAGE, InjectOptions};
pub use proxy_file::{ProxyFile, ProxyFileError};

use edits::{TextEdits, line_ending};
use objects::{ManifestObject, objects};
use pod::PodView;
use services::ServiceTarget;
use sidecar::{HEALTH_PORT, SidecarFacts};
use tree::{YamlContent, YamlNode};

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

/// Returns a manifest with a sidecar in each workload.
///
/// # Errors
///
/// The manifest is not understood, has no workload, or something in it stands in the way. Nothing is injected then.
pub fn inject(text: &str, options: &InjectOptions) -> Result<ChangedManifest, InjectError> {
    refuse_carriage_returns(text)?;
    let base = removal::uninject(text)?.text;
    let ending = line_ending(&base);
    let newline = !base.is_empty() && !base.ends_with('\n');
    let whole = if newline { format!("{base}{ending}") } else { base.clone() };
    let documents = tree::parse(&whole)?;
    if newline && documents.last().is_some_and(|document| ends_in_block_scalar(&base, &document.root)) {
        let line = base.matches('\n').count() + 1;
        return Err(InjectError::at(
            line,
            "the file ends in a block scalar without a newline; end its last line with one",
        ));
    }
    let objects = objects(&documents);
    let mut edits = TextEdits::default();
    let mut changed = ChangedManifest { text: String::new(), changed: Vec::new(), notes: Vec::new() };
    let mut appended = String::new();
    let mut redirected: Vec<(&YamlNode, [u16; 2])> = Vec::new();
    for workload in chosen(&objects, options)? {
        let name = workload
            .name()
            .ok_or_else(|| InjectError::at(workload.root.line, format!("{}; write metadata.name", workload.title())))?;
        let pod = PodView::of(workload)?;
        let services = ServiceTarget::all(&objects, workload);
        let file = proxy_file(workload, &pod, &services, options)?;
        let config_map = format!("{name}-pulsegate");
        refuse_config_map(&objects, &config_map, workload.namespace())?;
        let secret = options.tls_secret.clone().unwrap_or_else(|| sidecar::DEFAULT_SECRET.to_owned());
        let port_name = port_name(&pod, &file);
        let facts =
            SidecarFacts { image: &options.image, file: &file, port_name, config_map: &config_map, secret: &secret };
        let times = workload::inject(&whole, workload, &pod, &facts, options, &mut edits)?;
        let mut is_served = false;
        for service in objects.iter().filter(|object| object.is("v1", "Service")) {
            let own = |target: &&ServiceTarget<'_>| std::ptr::eq(target.service.root, service.root);
            let targets: Vec<_> = services.iter().filter(own).copied().collect();
            if !targets.iter().any(|target| target.resolve(&pod) == Some(file.upstream)) {
                continue;
            }
            is_served = true;
            // One Service may select several workloads.
            let ports = [file.upstream, file.port];
            match redirected.iter().find(|(root, _)| std::ptr::eq(*root, service.root)) {
                None => changed.notes.extend(services::redirect(&whole, &targets, &pod, &file, &mut edits)?),
                Some((_, others)) if *others == ports => {}
                Some(_) => {
                    let what = "selects workloads with different ports; inject them one by one with --only, each with a Service of its own";
                    return Err(InjectError::at(service.root.line, format!("{} {what}", service.title())));
                }
            }
            redirected.push((service.root, ports));
        }
        changed.changed.push(format!(
            "{}: app port {}, preStop sleep {} s, grace period {} s",
            workload.title(),
            file.upstream,
            times.sleep_s,
            times.grace_s
        ));
        if !is_served {
            changed.notes.push(format!(
                "no Service in this input leads to port {} of {}; let yours lead to targetPort {}",
                file.upstream,
                workload.title(),
                file.port
            ));
        }
        if file.has_tls {
            changed.notes.push(format!(
                "{} needs the Secret {secret}: kubectl create secret tls {secret} --cert=tls.crt --key=tls.key, or a \
                 Certificate of cert-manager",
                workload.title()
            ));
        }
        // A first ConfigMap restores the end of the text.
        let newline = newline && appended.is_empty();
        appended.push_str(&sidecar::config_map(&config_map, workload.namespace(), &file, newline, ending));
    }
    changed.notes.extend(general_notes(&objects, options));
    edits.insert(whole.len(), 0, appended);
    changed.text = edits.apply(&whole);
    // Nothing leaves here that cannot be taken back.
    match removal::uninject(&changed.text) {
        Ok(restored) if restored.text == base => Ok(changed),
        _ => Err(InjectError::whole(
            "what would be injected could not be removed again without a trace; write the manifest in the usual block style",
        )),
    }
}

/// Returns a manifest without what [`inject`] added, byte for byte as it was.
///
/// # Errors
///
/// The manifest is no YAML, or what was injected was changed so that it cannot be removed.
pub fn uninject(text: &str) -> Result<ChangedManifest, InjectError> {
    refuse_carriage_returns(text)?;
    let removal::Restored { text, changed } = removal::uninject(text)?;
    Ok(ChangedManifest { text, changed, notes: Vec::new() })
}

/// YAML reads a carriage return alone as a line break, as no tool here does.
fn refuse_carriage_returns(text: &str) -> Result<(), InjectError> {
    match text.match_indices('\r').find(|(at, _)| !text[at + 1..].starts_with('\n')) {
        Some((at, _)) => {
            let line = text[..at].matches('\n').count() + 1;
            Err(InjectError::at(line, "a carriage return without a newline; end lines with LF or CRLF"))
        }
        None => Ok(()),
    }
}

fn ends_in_block_scalar(text: &str, root: &YamlNode) -> bool {
    let last = match &root.content {
        YamlContent::Mapping { entries, is_flow: false } => entries.last().map(|entry| &entry.value),
        YamlContent::Sequence { items, is_flow: false } => items.last(),
        // A quoted scalar ends with its quote, and a plain one has no newline at its end.
        YamlContent::Scalar { value, is_plain } => return !is_plain && root.end == text.len() && value.ends_with('\n'),
        _ => return false,
    };
    last.is_some_and(|last| ends_in_block_scalar(text, last))
}

/// Returns the workloads to inject, never none.
fn chosen<'a>(objects: &[ManifestObject<'a>], options: &InjectOptions) -> Result<Vec<ManifestObject<'a>>, InjectError> {
    let mut workloads: Vec<_> = objects.iter().copied().filter(|object| object.pod_path().is_some()).collect();
    if options.only.is_empty() {
        workloads.retain(|object| object.serves_none().is_none());
    }
    if workloads.is_empty() {
        return Err(InjectError::whole(
            "no workload that serves clients; pass a Deployment, StatefulSet, DaemonSet, ReplicaSet (apps/v1) or Pod (v1)",
        ));
    }
    if options.only.is_empty() {
        return Ok(workloads);
    }
    let matches = |object: &ManifestObject<'_>, wanted: &str| match wanted.split_once('/') {
        Some((kind, name)) => object.kind().eq_ignore_ascii_case(kind) && object.name() == Some(name),
        None => object.name() == Some(wanted),
    };
    for wanted in &options.only {
        if !workloads.iter().any(|object| matches(object, wanted)) {
            let known: Vec<_> = workloads
                .iter()
                .map(|object| format!("{}/{}", object.kind(), object.name().unwrap_or_default()))
                .collect();
            return Err(InjectError::whole(format!("no workload is named {wanted:?}; there are {}", known.join(", "))));
        }
    }
    Ok(workloads.into_iter().filter(|object| options.only.iter().any(|wanted| matches(object, wanted))).collect())
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

fn general_notes(objects: &[ManifestObject<'_>], options: &InjectOptions) -> Vec<String> {
    let mut notes = Vec::new();
    let jobs = objects.iter().filter(|object| ["Job", "CronJob"].contains(&object.kind()));
    notes.extend(jobs.map(|job| format!("{} is left as it is: a Job serves no clients", job.title())));
    if options.only.is_empty() {
        let others = objects.iter().filter(|object| object.pod_path().is_some());
        let left = others.filter_map(|object| Some((object.title(), object.serves_none()?)));
        notes.extend(left.map(|(title, why)| format!("{title} is left as it is: {why}")));
    }
    let has_tls = options.config.as_ref().map_or(options.plain.is_none(), |file| file.has_tls);
    let ingresses = objects.iter().filter(|object| has_tls && object.kind() == "Ingress");
    notes.extend(ingresses.map(|ingress| {
        format!("{} sends plain HTTP to its Services; if it leads to this app, inject with --plain", ingress.title())
    }));
    if options.image == DEFAULT_IMAGE {
        notes.push(format!("the image {DEFAULT_IMAGE} is a placeholder; pass --image"));
    }
    notes
}
