//! The Kubernetes objects of a stream: those of its documents, and those inside of lists.

use super::tree::{YamlContent, YamlDocument, YamlNode};

/// An object of the manifest.
#[derive(Clone, Copy, Debug)]
pub(super) struct ManifestObject<'a> {
    pub(super) document: &'a YamlDocument,
    pub(super) root: &'a YamlNode,
}

/// The kinds whose pods serve clients, with their versions, and the path of the pod's specification.
const WORKLOADS: [(&str, &str, &[&str]); 6] = [
    ("apps/v1", "Deployment", &["spec", "template", "spec"]),
    ("apps/v1", "StatefulSet", &["spec", "template", "spec"]),
    ("apps/v1", "DaemonSet", &["spec", "template", "spec"]),
    ("apps/v1", "ReplicaSet", &["spec", "template", "spec"]),
    ("v1", "ReplicationController", &["spec", "template", "spec"]),
    ("v1", "Pod", &["spec"]),
];

/// The short names of kinds in kubectl.
const SHORT_NAMES: [(&str, &str); 6] = [
    ("deployment", "deploy"),
    ("statefulset", "sts"),
    ("daemonset", "ds"),
    ("replicaset", "rs"),
    ("replicationcontroller", "rc"),
    ("pod", "po"),
];

impl<'a> ManifestObject<'a> {
    pub(super) fn kind(&self) -> &'a str {
        self.root.text_at(&["kind"]).unwrap_or_default()
    }

    pub(super) fn name(&self) -> Option<&'a str> {
        self.root.text_at(&["metadata", "name"])
    }

    pub(super) fn namespace(&self) -> Option<&'a str> {
        self.root.text_at(&["metadata", "namespace"])
    }

    /// Returns kind and name, as in `Deployment shop`.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind(), self.name().unwrap_or("without a name"))
    }

    /// Returns whether it is the one that is called `NAME`, `KIND/NAME` (also in kubectl's short forms) or
    /// `NAMESPACE/NAME`.
    pub(super) fn is_called(&self, wanted: &str) -> bool {
        let Some((first, name)) = wanted.split_once('/') else { return self.name() == Some(wanted) };
        let (first_lower, kind) = (first.to_ascii_lowercase(), self.kind().to_ascii_lowercase());
        let short = SHORT_NAMES.iter().find(|(full, _)| *full == kind).map(|(_, short)| *short);
        let is_kind =
            first_lower == kind || first_lower.strip_suffix('s') == Some(&*kind) || short == Some(&*first_lower);
        self.name() == Some(name) && (is_kind || self.namespace() == Some(first))
    }

    /// Returns whether it is of the kind `kind` in the API version `version`.
    pub(super) fn is(&self, version: &str, kind: &str) -> bool {
        self.kind() == kind && self.root.text_at(&["apiVersion"]) == Some(version)
    }

    /// Returns the path of the pod's specification, if this is a workload.
    pub(super) fn pod_path(&self) -> Option<&'static [&'static str]> {
        WORKLOADS.iter().find(|(version, kind, _)| self.is(version, kind)).map(|(_, _, path)| *path)
    }

    /// Returns why a workload serves no clients, if that can be seen.
    pub(super) fn serves_none(&self) -> Option<&'static str> {
        let annotations = self.root.get("metadata").and_then(|metadata| metadata.get("annotations"));
        if annotations.is_some_and(|annotations| annotations.get("helm.sh/hook").is_some()) {
            return Some("it is a hook of Helm");
        }
        let ends = self.root.text_at(&["spec", "restartPolicy"]).is_some_and(|policy| policy != "Always");
        (self.is("v1", "Pod") && ends).then_some("it runs to its end")
    }

    /// Returns the labels of the workload's pods.
    pub(super) fn pod_labels(&self) -> Option<&'a YamlNode> {
        let above = self.pod_path()?.split_last()?.1;
        let template = above.iter().try_fold(self.root, |node, key| node.get(key))?;
        template.get("metadata")?.get("labels")
    }
}

/// Returns the objects of a stream in their order.
pub(super) fn objects(documents: &[YamlDocument]) -> Vec<ManifestObject<'_>> {
    let mut found = Vec::new();
    for document in documents {
        let mut open = vec![&*document.root];
        while let Some(root) = open.pop() {
            let object = ManifestObject { document, root };
            let is_alias = |node: &YamlNode| matches!(node.content, YamlContent::Alias(_));
            match root.entry("items") {
                // Not through aliases, which could repeat a list without end.
                Some(items) if object.kind().ends_with("List") && !is_alias(root) && !is_alias(&items.value) => {
                    open.extend(items.value.items().iter().rev().map(|item| &**item));
                }
                _ if root.get("kind").is_some() => found.push(object),
                _ => {}
            }
        }
    }
    found
}
