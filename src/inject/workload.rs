//! The injection into one workload: sidecar, volumes, preStop hooks and grace period.

use super::editor::{ItemPosition, ObjectEditor, dash_column};
use super::edits::{TextEdits, line_ending};
use super::error::InjectError;
use super::layout::{Insertion, Layout};
use super::objects::ManifestObject;
use super::options::InjectOptions;
use super::pod::PodView;
use super::proxy_file::ProxyFile;
use super::record::InjectRecord;
use super::sidecar::{self, SIDECAR, SidecarFacts, USER, VOLUMES};
use super::tree::{YamlEntry, YamlNode};

/// The grace period of a pod that sets none (Kubernetes API reference, `PodSpec`).
const DEFAULT_GRACE_S: u64 = 30;

/// The times that were set in a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetTimes {
    pub(super) sleep_s: u64,
    pub(super) grace_s: u64,
}

/// Adds the changes of one workload to `edits`.
///
/// # Errors
///
/// Something stands in the way, or it cannot be extended where it must be.
pub(super) fn inject(
    text: &str,
    object: ManifestObject<'_>,
    pod: &PodView<'_>,
    facts: &SidecarFacts<'_>,
    options: &InjectOptions,
    edits: &mut TextEdits,
) -> Result<SetTimes, InjectError> {
    let under = object.pod_path().unwrap_or_default();
    let layout = Layout { step: 2, dash: 0, item: 2, ending: line_ending(text) };
    let record = InjectRecord { under: under.join("/"), ..InjectRecord::new() };
    let mut editor = ObjectEditor { text, object, layout, edits, record };
    let mut node = editor.block_mapping(object.root, &object.title())?;
    for (at, key) in under.iter().enumerate() {
        let next = node.get(key).ok_or_else(|| InjectError::at(node.line, format!("no {}", under[..=at].join("."))))?;
        node = editor.block_mapping(next, &under[..=at].join("."))?;
    }
    if let Some(containers) = node.get("containers") {
        editor.block_sequence(containers, "containers")?;
    }
    editor.layout = style(text, object, pod, under)?;
    refuse_foreign_parts(&editor, node)?;
    for container in &pod.containers {
        add_pre_stop(&mut editor, container, facts.file, options)?;
    }
    let position = sidecar_position(node);
    editor.add_items(node, "initContainers", vec![(SIDECAR, sidecar::container(facts))], position)?;
    if facts.file.has_tls && node.get("securityContext").is_none_or(|context| context.get("fsGroup").is_none()) {
        // The key is readable by its group only.
        editor.add_below(node, "", "securityContext", "fsGroup", &Insertion::inline(USER))?;
    }
    let grace_s = extend_grace(&mut editor, node, facts.file.drain_s)?;
    editor.add_items(node, "volumes", sidecar::volumes(facts), None)?;
    editor.add_record()?;
    Ok(SetTimes { sleep_s: facts.file.drain_s, grace_s })
}

/// Returns the indentation style of a workload.
fn style(text: &str, object: ManifestObject<'_>, pod: &PodView<'_>, under: &[&str]) -> Result<Layout, InjectError> {
    let above = under.split_last().map_or(&[][..], |(_, above)| above);
    let parent = above.iter().try_fold(object.root, |node, key| node.get(key)).unwrap_or(object.root);
    let dash = dash_column(text, pod.containers[0])?;
    Ok(Layout {
        step: pod.spec.column.checked_sub(parent.column).filter(|step| *step > 0).unwrap_or(2),
        dash: dash.saturating_sub(pod.spec.column),
        item: pod.containers[0].column.checked_sub(dash).filter(|item| *item > 1).unwrap_or(2),
        ending: line_ending(text),
    })
}

/// Refuses a pod that has a sidecar or volumes of these names without a record of them.
fn refuse_foreign_parts(editor: &ObjectEditor<'_>, pod: &YamlNode) -> Result<(), InjectError> {
    let named = |key: &str, names: &[&str]| {
        let items = pod.get(key).map(YamlNode::items).unwrap_or_default();
        items
            .iter()
            .find(|item| item.text_at(&["name"]).is_some_and(|name| names.contains(&name)))
            .map(|item| item.line)
    };
    let container = named("initContainers", &[SIDECAR]).or_else(|| named("containers", &[SIDECAR]));
    let title = editor.object.title();
    if let Some(line) = container {
        return Err(InjectError::at(
            line,
            format!(
                "{title} has a container named {SIDECAR} that inject did not add; remove it, or keep it and do not inject"
            ),
        ));
    }
    match named("volumes", &VOLUMES) {
        Some(line) => Err(InjectError::at(line, format!("{title} has a volume that inject would add; rename it"))),
        None => Ok(()),
    }
}

/// Returns the place of the sidecar: behind the last init container that ends, so that migrations run first and a sidecar
/// that these need starts before them, and before all sidecars that follow.
fn sidecar_position(pod: &YamlNode) -> Option<ItemPosition> {
    let items = pod.get("initContainers")?.items();
    let last = items.iter().rposition(|item| item.text_at(&["restartPolicy"]) != Some("Always"));
    Some(last.map_or(ItemPosition::First, ItemPosition::Behind))
}

/// Lets a container of the app outlive the drain.
fn add_pre_stop(
    editor: &mut ObjectEditor<'_>,
    container: &YamlNode,
    file: &ProxyFile,
    options: &InjectOptions,
) -> Result<(), InjectError> {
    let name = container.text_at(&["name"]);
    let name = name.ok_or_else(|| InjectError::at(container.line, "a container without a name; name it"))?;
    let what = format!("container {name}");
    let container = editor.block_mapping(container, &what)?;
    let path = format!("containers/{name}");
    let seconds = file.drain_s.to_string();
    let sleep = || Insertion::mapping([("seconds", Insertion::inline(&*seconds))]);
    let Some(lifecycle) = container.entry("lifecycle").filter(|lifecycle| !lifecycle.value.is_empty()) else {
        let hook = Insertion::mapping([("sleep", sleep())]);
        return editor.add_below(container, &path, "lifecycle", "preStop", &hook);
    };
    let lifecycle_path = format!("{path}/lifecycle");
    let lifecycle = editor.block_mapping(&lifecycle.value, "lifecycle")?;
    let Some(hook) = lifecycle.entry("preStop").filter(|hook| !hook.value.is_empty()) else {
        return editor.add_below(lifecycle, &lifecycle_path, "preStop", "sleep", &sleep());
    };
    let former = hook.value.get("sleep").and_then(|sleep| sleep.entry("seconds"));
    match former {
        None if options.keep_pre_stop => Ok(()),
        None => Err(InjectError::at(
            hook.key.line,
            format!(
                "{what} has a preStop hook of its own, and a container has one at most; replace it by \
                 sleep: {{ seconds: {seconds} }}, which lets the app outlive the drain, or pass --keep-pre-stop if the \
                 hook takes {seconds} s or longer"
            ),
        )),
        Some(seconds) => extend_sleep(editor, seconds, &lifecycle_path, file.drain_s),
    }
}

/// Extends a sleep that is shorter than the drain.
fn extend_sleep(
    editor: &mut ObjectEditor<'_>,
    seconds: &YamlEntry,
    path: &str,
    drain_s: u64,
) -> Result<(), InjectError> {
    let former = number(&seconds.value, "the sleep of preStop")?;
    if former.is_some_and(|former| former >= drain_s) {
        return Ok(());
    }
    editor.replace_scalar(seconds, &format!("{path}/preStop/sleep/seconds"), &drain_s.to_string())
}

/// Extends the grace period by the drain, and returns it.
fn extend_grace(editor: &mut ObjectEditor<'_>, pod: &YamlNode, drain_s: u64) -> Result<u64, InjectError> {
    let key = "terminationGracePeriodSeconds";
    let Some(entry) = pod.entry(key) else {
        let grace_s = drain_s + DEFAULT_GRACE_S;
        editor.add_entry(pod, "", key, &Insertion::Inline(grace_s.to_string()));
        return Ok(grace_s);
    };
    let grace_s = number(&entry.value, key)?.unwrap_or(DEFAULT_GRACE_S).saturating_add(drain_s);
    editor.replace_scalar(entry, key, &grace_s.to_string())?;
    Ok(grace_s)
}

/// Reads whole seconds; a null is none.
fn number(node: &YamlNode, what: &str) -> Result<Option<u64>, InjectError> {
    if node.is_null() {
        return Ok(None);
    }
    let text = node.text().unwrap_or("a collection");
    // Beyond an hour it is a slip, and far beyond Kubernetes refuses it.
    match text.parse::<u64>() {
        Ok(seconds) if seconds <= 1_000_000 => Ok(Some(seconds)),
        _ => Err(InjectError::at(
            node.line,
            format!(
                "{what} is {text:?} and no number of seconds; fill the variable in first (envsubst, helm template), or write the number"
            ),
        )),
    }
}
