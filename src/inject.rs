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
mod fingerprint;
mod injection;
mod layout;
mod network_policies;
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
pub use injection::ChangedManifest;
pub use options::{DEFAULT_IMAGE, InjectOptions};
pub use proxy_file::{ProxyFile, ProxyFileError};

use edits::line_ending;
use injection::Injection;
use objects::{ManifestObject, objects};
use tree::{YamlContent, YamlNode};

/// Returns a manifest with a sidecar in each workload.
///
/// # Errors
///
/// The manifest is not understood, has no workload, or something in it stands in the way. Nothing is injected then.
pub fn inject(text: &str, options: &InjectOptions) -> Result<ChangedManifest, InjectError> {
    refuse_carriage_returns(text)?;
    let removal::Restored { text: base, notes: edited, .. } = removal::uninject(text)?;
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
    let mut injection = Injection::of(&whole, &objects, options);
    for workload in chosen(&objects, options)? {
        injection.add(workload)?;
    }
    let mut changed = injection.finish(newline);
    changed.notes.splice(..0, edited);
    changed.notes.extend(general_notes(&objects, options));
    // Nothing leaves here that cannot be taken back.
    match removal::uninject(&changed.text) {
        Ok(restored) if restored.text == base && restored.notes.is_empty() => Ok(changed),
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
    let removal::Restored { text, changed, notes } = removal::uninject(text)?;
    Ok(ChangedManifest { text, changed, notes })
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
    for wanted in &options.only {
        if !workloads.iter().any(|object| object.is_called(wanted)) {
            let known: Vec<_> = workloads
                .iter()
                .map(|object| format!("{}/{}", object.kind(), object.name().unwrap_or_default()))
                .collect();
            return Err(InjectError::whole(format!("no workload is named {wanted:?}; there are {}", known.join(", "))));
        }
    }
    Ok(workloads.into_iter().filter(|object| options.only.iter().any(|wanted| object.is_called(wanted))).collect())
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
