//! Network policies that select a workload, and whether they admit the sidecar's port.

use super::objects::ManifestObject;
use super::tree::YamlNode;

/// Returns the name of a policy that selects a workload, if none that does admits the TCP port `port`, whose name is
/// `port_name`.
pub(super) fn blocking<'a>(
    objects: &[ManifestObject<'a>],
    workload: ManifestObject<'a>,
    port: u16,
    port_name: &str,
) -> Option<ManifestObject<'a>> {
    let policies = objects.iter().copied().filter(|object| object.kind() == "NetworkPolicy");
    let own: Vec<_> = policies.filter(|policy| selects(*policy, workload)).collect();
    // Policies add up: one that admits the port is enough.
    let admitted = own.iter().any(|policy| {
        let rules = policy.root.get("spec").and_then(|spec| spec.get("ingress")).map(YamlNode::items);
        rules.unwrap_or_default().iter().any(|rule| admits(rule, port, port_name))
    });
    own.first().copied().filter(|_| !admitted)
}

/// Returns whether a policy is about what comes into the pods of a workload; expressions are taken as matching.
fn selects(policy: ManifestObject<'_>, workload: ManifestObject<'_>) -> bool {
    let Some(spec) = policy.root.get("spec") else { return false };
    let types = spec.get("policyTypes").map(YamlNode::items).unwrap_or_default();
    let is_of_ingress = types.is_empty() || types.iter().any(|kind| kind.text() == Some("Ingress"));
    let wanted = spec.get("podSelector").and_then(|selector| selector.get("matchLabels")).map(YamlNode::entries);
    let labels = workload.pod_labels();
    let has = |key: &str| labels.and_then(|labels| labels.text_at(&[key]));
    is_of_ingress
        && policy.namespace() == workload.namespace()
        && wanted.unwrap_or_default().iter().all(|entry| {
            entry.key.text().is_some_and(|key| entry.value.text().is_some() && has(key) == entry.value.text())
        })
}

fn admits(rule: &YamlNode, port: u16, port_name: &str) -> bool {
    let ports = rule.get("ports").map(YamlNode::items).unwrap_or_default();
    ports.is_empty()
        || ports.iter().any(|item| {
            let is_tcp = item.text_at(&["protocol"]).is_none_or(|protocol| protocol == "TCP");
            let number = |key| item.text_at(&[key]).and_then(|text| text.parse::<u16>().ok());
            let is_in = match (item.text_at(&["port"]), number("port")) {
                (None, _) => true,
                (Some(name), None) => name == port_name,
                (Some(_), Some(first)) => (first..=number("endPort").unwrap_or(first)).contains(&port),
            };
            is_tcp && is_in
        })
}
