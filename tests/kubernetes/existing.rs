//! A chart that has no pulsegate, with the changes that `deploy/README.md` shows.

use std::fs;
use std::path::Path;

use super::made::{Charts, HELMS, root, succeed};

const POD: &str = r#"      {{- include "pulsegate.podSpec" (dict "root" $ "name" (include "app.fullname" .)
            "spec" (include "app.podSpec" . | fromYaml)) | nindent 6 }}
"#;

const PORTS: &str = r#"  ports:
    {{- include "pulsegate.servicePort" (dict "root" $ "name" (include "app.fullname" .)) | nindent 4 }}
"#;

const CONFIG_MAP: &str = r#"{{ include "pulsegate.configMap" (dict "root" $ "name" (include "app.fullname" .)) }}
"#;

const DEPENDENCY: &str = r#"
dependencies:
  - name: pulsegate
    version: ">=0.1.0"
    repository: file://../pulsegate
"#;

const VALUES: &str = r#"
pulsegate:
  tlsSecret: pulsegate-tls
  config:
    upstream: { url: "http://127.0.0.1:3000" }
"#;

/// Replaces the content of a file.
#[track_caller]
fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    fs::write(file, change(text)).expect("write the file");
}

/// Makes the changes to a chart of `helm create app`.
fn follow(chart: &Path) {
    let templates = chart.join("templates");
    let mut pod = String::new();
    edit(&templates.join("deployment.yaml"), |text| {
        let (before, spec) = text.split_once("\n    spec:\n").expect("the pod's spec");
        spec.clone_into(&mut pod);
        format!("{before}\n    spec:\n{POD}")
    });
    edit(&templates.join("_helpers.tpl"), |text| {
        format!("{text}\n{{{{- define \"app.podSpec\" -}}}}\n{}\n{{{{- end -}}}}\n", pod.trim_end())
    });
    edit(&templates.join("service.yaml"), |text| {
        let (before, ports) = text.split_once("  ports:\n").expect("ports");
        let (_, after) = ports.split_once("  selector:").expect("a selector");
        format!("{before}{PORTS}  selector:{after}")
    });
    fs::write(templates.join("pulsegate.yaml"), CONFIG_MAP).expect("write a template");
    edit(&chart.join("Chart.yaml"), |text| text + DEPENDENCY);
    edit(&chart.join("values.yaml"), |text| text + VALUES);
}

#[test]
fn the_page_shows_these_changes() {
    let page = fs::read_to_string(root().join("deploy/README.md")).expect("it is there");
    for line in [POD, PORTS, CONFIG_MAP, DEPENDENCY, VALUES].iter().flat_map(|change| change.lines()) {
        // `ports:` and the title of a section stand in the chart already.
        let shown = line.is_empty() || page.contains(&format!("\n+{line}\n")) || page.contains(&format!("\n {line}\n"));
        assert!(shown, "deploy/README.md does not show {line}");
    }
}

#[test]
fn a_chart_of_helm_create_takes_the_sidecar() {
    for helm in HELMS {
        let charts = Charts::build(helm);
        succeed(charts.command().args(["create", "app"]));
        let before = charts.render("app", &[]);
        follow(&charts.folder().join("app"));
        succeed(charts.command().args(["dependency", "build", "app"]));
        succeed(charts.command().args(["lint", "--strict", "app"]));
        let after = charts.render("app", &[]);
        for part in [
            "name: demo-app-pulsegate\n",
            "url = \"http://127.0.0.1:3000\"\n",
            "targetPort: 8443\n",
            "secretName: pulsegate-tls\n",
            "terminationGracePeriodSeconds: 57\n",
            "seconds: 27\n",
        ] {
            assert!(after.contains(part) && !before.contains(part), "{part}: {after}");
        }
        // The Ingress of the chart keeps its port: the page says so, and this is its first way out, and its second.
        let ingress = ["--set=ingress.enabled=true"];
        let rendered = charts.render("app", &ingress);
        assert!(rendered.contains("                  number: 80\n") && rendered.contains("port: 443\n"), "{rendered}");
        let moved = charts.render("app", &["--set=ingress.enabled=true", "--set=service.port=443"]);
        assert!(moved.contains("                  number: 443\n"), "{moved}");
        let trusted = "--set=pulsegate.config.forwarded.trusted_proxies={10.0.0.0/8}";
        let plain = charts.render("app", &["--set=ingress.enabled=true", "--set=pulsegate.plain=true", trusted]);
        assert!(plain.contains("                  number: 80\n") && plain.contains("port: 80\n"), "{plain}");
        // The app stays as it was.
        for part in ["image: nginx:", "containerPort: 80\n", "port: http\n", "serviceAccountName: demo-app\n"] {
            let count = |text: &str| text.replace('"', "").matches(part).count();
            assert!(count(&before) > 0 && count(&after) == count(&before), "{part}: {after}");
        }
    }
}
