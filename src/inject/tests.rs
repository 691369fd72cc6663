//! Compiled under `#[cfg(test)]` only.

mod edited;
mod generated;
mod positions;
mod style;

use super::{DEFAULT_IMAGE, InjectOptions, inject, uninject};

fn options() -> InjectOptions {
    InjectOptions { image: DEFAULT_IMAGE.to_owned(), ..InjectOptions::default() }
}

/// Injects and checks the way back and the second run; returns the text.
#[track_caller]
fn injected(text: &str) -> String {
    let injected = inject(text, &options()).unwrap_or_else(|error| panic!("{error}\n{text}")).text;
    let again = inject(&injected, &options()).unwrap_or_else(|error| panic!("{error}\n{injected}")).text;
    assert_eq!(again, injected, "the second run");
    let back = uninject(&injected).unwrap_or_else(|error| panic!("{error}\n{injected}")).text;
    assert_eq!(back, text, "the way back from\n{injected}");
    injected
}

/// Returns the lines of a pod around which everything stands still.
fn lines(text: &str, first: &str, count: usize) -> String {
    let at = text.find(first).unwrap_or_else(|| panic!("no {first:?} in {text}"));
    text[at..].split_inclusive('\n').take(count).collect()
}

#[test]
fn a_text_without_objects_has_nothing_to_remove() {
    for text in ["", "# a\n", "---\n...\n", "a: 1", "- b\n", "\u{feff}a: 1\r\n"] {
        assert_eq!(uninject(text).expect("YAML").text, text);
    }
}

#[test]
fn aliases_of_lists_cost_no_time() {
    let level =
        |at: usize| format!("- &l{at}\n  kind: List\n  items: [{}]\n", vec![format!("*l{}", at - 1); 20].join(", "));
    let levels: String = (1..30).map(level).collect();
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- &l0\n  kind: List\n  items: []\n{levels}");
    let error = inject(&text, &options()).expect_err("no workload");
    assert!(error.message.starts_with("no workload"), "{error}");
    // A workload that is an alias is refused.
    let pod = "apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec:\n    containers:\n    - ports: [{containerPort: 1}]";
    let text = format!("apiVersion: v1\nkind: List\nx:\n- &p\n  {pod}\nitems:\n- *p\n");
    let error = inject(&text, &options()).expect_err("an alias");
    assert!(error.line == Some(12) && error.message.starts_with("Pod a is an alias"), "{error}");
}

#[test]
fn two_workloads_are_both_injected_and_may_share_a_name() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: app\n    ports: [{containerPort: 3000}]";
    let set = text.replace("apiVersion: v1", "apiVersion: v1\nx: y").replace("name: a\n", "name: b\n");
    let both = injected(&format!("{text}\n---\n{set}"));
    assert!(
        both.contains("  name: a-pulsegate\n  annotations") && both.contains("  name: b-pulsegate\n  annotations"),
        "{both}"
    );
    let shared = injected(&format!("{text}\n---\n{text}\n"));
    assert_eq!(shared.matches("kind: ConfigMap").count(), 1, "{shared}");
    let other = format!("{text}\n---\n{}", text.replace("3000", "3001"));
    let error = inject(&other, &options()).expect_err("two ports");
    assert!(error.line == Some(10) && error.message.contains("would share the ConfigMap a-pulsegate"), "{error}");
}

#[test]
fn one_service_of_two_workloads_is_moved_once() {
    let pod = |name: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: a}}\nspec:\n  containers:\n  - name: app\n    ports:\n    - containerPort: 3000\n"
        )
    };
    let service = "---\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  selector:\n    app: a\n  ports:\n  - port: 80\n    targetPort: 3000\n";
    let text = injected(&format!("{}{service}{}", pod("blue"), pod("green")));
    assert_eq!(text.matches("targetPort: 8443").count(), 1, "{text}");
    assert_eq!(text.matches("\"was\":{\"spec/ports/port=443/port\":\" 80\"").count(), 1, "{text}");
    let only = InjectOptions { only: vec!["blue".to_owned()], ..options() };
    let notes = inject(&format!("{}{service}{}", pod("blue"), pod("green")), &only).expect("injected").notes;
    assert!(notes.contains(&"Service a selects Pod green too, which has no sidecar".to_owned()), "{notes:?}");
    let other = pod("green").replace("3000", "8080");
    let refusal =
        |service: &str| inject(&format!("{}{service}{other}", pod("blue")), &options()).expect_err("refused").message;
    assert!(refusal(service).contains("Pod green has several ports (3000, 8080)"), "{}", refusal(service));
    let both = service.to_owned() + "  - port: 81\n    targetPort: 8080\n";
    assert!(refusal(&both).contains("Service a selects workloads with different ports"), "{}", refusal(&both));
}
