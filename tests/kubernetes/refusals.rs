//! Values that must not render, each with the sentence that names the remedy.

use super::made::{Charts, HELMS, succeed};

/// Arguments of `helm template` for the example, and words of the error under every helm.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["--kube-version=1.29.9"], &["Kubernetes v1.29.9 has no native sidecars", "upgrade to 1.30 or later"]),
    (
        &["--set=pulsegate.terminationGracePeriodSeconds=27"],
        &["terminationGracePeriodSeconds is 27, but the drain takes 27 s", "set 57 or more"],
    ),
    (
        &["--set=pulsegate.terminationGracePeriodSeconds=60", "--set=pulsegate.config.drain.window=1m"],
        &["terminationGracePeriodSeconds is 60, but the drain takes 72 s", "set 102 or more"],
    ),
    (
        &["--set=pulsegate.terminationGracePeriodSeconds=30", "--set=pulsegate.config.heartbeat.close_grace=6s"],
        &["the drain takes 31 s"],
    ),
    (&["--set=pulsegate.terminationGracePeriodSeconds=30", "--set-json", ROUTE_THAT_WAITS], &["the drain takes 34 s"]),
    (&["--set=pulsegate.plain=true"], &["name the ingress in config.forwarded.trusted_proxies"]),
    (&["--set=pulsegate.config.listen.address=0.0.0.0:443"], &["set listenOn and ports.https instead"]),
    (&["--set=pulsegate.config.admin.health=0.0.0.0:9000"], &["set listenOn and ports.health instead"]),
    (&["--set=pulsegate.config.admin.socket=/tmp/a"], &["config.admin.socket is set; remove it"]),
    (&["--set=pulsegate.config.tls.mode=terminate"], &["set plain: true instead"]),
    (&["--set=pulsegate.config.tls.acme.domains={a.example}"], &["let cert-manager write the Secret"]),
    (
        &["--set=pulsegate.ports.https=4000", "--set=pulsegate.config.upstream.url=http://127.0.0.1:4000"],
        &["config.upstream.url is http://127.0.0.1:4000, but pulsegate itself listens on this port (ports.https)"],
    ),
    (
        &["--set=pulsegate.ports.https=3000", OTHER_APP],
        &["port 3000 belongs to container app; set ports.https to another"],
    ),
    (
        &["--set-string=pulsegate.config.listen.redirect=[::]:3000", OTHER_APP],
        &["port 3000 belongs to container app; set config.listen.redirect to another"],
    ),
    (&["--set=pulsegate.ports.https=9090"], &["ports.health and ports.https are both 9090; set one of them"]),
    (&["--set=pulsegate.ports.health=8443"], &["ports.health and ports.https are both 8443; set one of them"]),
    (
        &["--set=pulsegate.plain=true", "--set=pulsegate.ports.http=9090", TRUSTED],
        &["ports.health and ports.http are both 9090; set one of them"],
    ),
    (
        &["--set-string=pulsegate.config.listen.redirect=0.0.0.0:9090"],
        &["config.listen.redirect and ports.health are both 9090"],
    ),
    (
        &["--set=pulsegate.config.upstream.url=unix:/run/app.sock"],
        &["config.upstream.url is a unix socket", "port of the app"],
    ),
    (
        &["--set-json", r#"pulsegate.config.route=[{"path":"/a/","upstream":"unix:/run/a.sock"}]"#],
        &["config.route[0].upstream is a unix socket"],
    ),
    (
        &["--set-json", r#"pulsegate.config.route=[{"path":"/a/","upstream":{"url":"unix:/run/a.sock"}}]"#],
        &["config.route[0].upstream is a unix socket"],
    ),
    (
        &["--set=pulsegate.config.tls.certificate=/a.crt"],
        &["config.tls.certificate is set; remove it and name the Secret in tlsSecret"],
    ),
    (&["--set=pulsegate.config.tls.private_key=/a.key"], &["config.tls.private_key is set; remove it"]),
    (&["--set=pulsegate.config.drain.window=999us"], &["config.drain.window is \"999us\", which is too short"]),
    (&["--set=pulsegate.resources.limits.memory=128Mi"], &["limits.memory is 128Mi", "config.limits.memory (128MiB)"]),
    (&["--set=pulsegate.config.limits.memory=1GiB"], &["resources.limits.memory is 256Mi", "(1GiB); raise the one"]),
    (
        &["--set=autoscaling.enabled=true", "--set=autoscaling.minReplicas=5", "--set=autoscaling.maxReplicas=2"],
        &["autoscaling.minReplicas is more than autoscaling.maxReplicas"],
    ),
    (&["--set=pulsegate.tlsSecret=Foo_Bar"], &["tlsSecret", "pattern"]),
    (&["--set=pulsegate.image=a b"], &["image", "pattern"]),
    (&[CERT_MANAGER], &["tls.certManager.dnsNames is empty; write the names of the site"]),
    (
        &["--set=tls.certManager.dnsNames={a}", CERT_MANAGER, "--set=tls.certificate=x", "--set=tls.privateKey=x"],
        &["tls.certManager.enabled and tls.certificate are both set; choose one"],
    ),
    (&["--set=tls.certificate=x"], &["tls.certificate and tls.privateKey belong together"]),
    (
        &[
            "--set=tls.certificate=x",
            "--set=tls.privateKey=x",
            "--set=pulsegate.plain=true",
            "--set=pulsegate.config.forwarded.trusted_proxies={10.0.0.0/8}",
        ],
        &["tls has a certificate, and pulsegate.plain needs none"],
    ),
    // By the schemas, which helm words differently from version to version: the place is the same.
    (&["--set=pulsegate.config.drain.window=15"], &["drain", "window", "string"]),
    (&["--set=pulsegate.config.drain.window=15sec0nds"], &["drain", "window", "pattern"]),
    (&["--set=pulsegate.config.drain.windo=15s"], &["windo", "llowed"]),
    (&["--set=pulsegate.config.heartbeat=25s"], &["config", "heartbeat", "object"]),
    (&["--set=pulsegate.config.heartbeat.max_missed=two"], &["max_missed", "integer"]),
    (&["--set=pulsegate.config.route=/live/"], &["config", "route", "array"]),
    (&["--set=pulsegate.image=7"], &["image", "string"]),
    (&["--set=pulsegate.ports.https=https"], &["ports", "https", "integer"]),
    (&["--set=pulsegate.ports.https=70000"], &["ports", "https", "65"]),
    (&["--set=pulsegate.plain=yes"], &["plain", "boolean"]),
    (&["--set=pulsegate.terminationGracePeriodSeconds=1m"], &["terminationGracePeriodSeconds"]),
    (&["--set=pulsegate.imagePullPolicy=Sometimes"], &["imagePullPolicy"]),
    (&["--set=pulsegate.colour=red"], &["colour", "llowed"]),
    (&["--set=replicas=two"], &["replicas", "integer"]),
    (&["--set=loopback=maybe"], &["loopback", "boolean"]),
    (&["--set=service.type=Node"], &["service", "type"]),
    (&["--set=autoscaling.enabled=true", "--set=autoscaling.cpuPercent=0"], &["cpuPercent"]),
    (&["--set=colour=red"], &["colour", "llowed"]),
];

/// Another app than that of the pod, so that the ports of the pod decide.
const OTHER_APP: &str = "--set=pulsegate.config.upstream.url=http://app.example:3000";

/// What plain HTTP needs beside it.
const TRUSTED: &str = "--set=pulsegate.config.forwarded.trusted_proxies={10.0.0.0/8}";

const CERT_MANAGER: &str = "--set=tls.certManager.enabled=true";

const ROUTE_THAT_WAITS: &str = r#"pulsegate.config.route=[{"path":"/a/","heartbeat":{"close_grace":"9s"}}]"#;

#[test]
fn values_that_cannot_work_are_refused() {
    for helm in HELMS {
        let charts = Charts::build(helm);
        for (arguments, words) in REFUSED {
            let said = charts.refusal("express-example", arguments);
            for word in *words {
                assert!(said.contains(word), "{helm} {arguments:?}: no {word:?} in {said}");
            }
        }
    }
}

/// The pods of another chart, by keys of its values, and words of the refusal.
const REFUSED_PODS: &[(&str, &[&str])] = &[
    ("hook", &["container app has a preStop hook of its own; let it last 20 s", "keepPreStop: true"]),
    ("container", &["has a container named pulsegate already; remove it"]),
    ("volume", &["has a volume named pulsegate-run already; remove it"]),
    ("port", &["port 9090 belongs to container app; set ports.health to another"]),
    ("host", &["hostNetwork: true", "remove it"]),
    ("empty", &["the pod's spec has no containers"]),
    ("list", &["the pod's spec is no YAML"]),
    ("text", &["spec is no map"]),
    ("values", &["the values of the sidecar are missing"]),
];

#[test]
fn pods_that_cannot_take_the_sidecar_are_refused() {
    for helm in HELMS {
        let charts = Charts::build(helm);
        for (broken, words) in REFUSED_PODS {
            let said = charts.refusal("umbrella", &["--set", &format!("broken={broken}")]);
            for word in *words {
                assert!(said.contains(word), "{helm} {broken}: no {word:?} in {said}");
            }
        }
    }
}

#[test]
fn a_hook_that_lasts_is_kept_on_demand() {
    for helm in HELMS {
        let rendered = Charts::build(helm).render("umbrella", &["--set=broken=hook", "--set=proxy.keepPreStop=true"]);
        let (_, pod) = rendered.split_once("\n  name: broken\n").expect("the pod");
        let pod = pod.split_once("\n---\n").map_or(pod, |(pod, _)| pod);
        let (app, others) = pod.split_once("image: app\n").expect("the app");
        assert!(!app.contains("sleep:"), "{pod}");
        let (app, others) = others.split_once("\n      - ").unwrap_or((others, ""));
        assert!(app.contains("preStop:\n") && app.contains("exec:\n") && !app.contains("sleep:"), "{pod}");
        // One without a hook, one with a shorter sleep, two with nulls: each must outlive the drain of 20 s.
        let names = ["cache", "queue", "shipper", "worker"].map(|name| others.contains(&format!("image: {name}\n")));
        assert_eq!(names, [true; 4], "{pod}");
        assert_eq!(others.matches("sleep:\n              seconds: 20\n").count(), 4, "{pod}");
    }
}

/// A grace period of 0, no group, and a UDP port of the same number are what they are.
#[test]
fn zeros_and_nulls_of_a_pod_mean_what_kubernetes_says() {
    for helm in HELMS {
        let rendered = Charts::build(helm).render("umbrella", &["--set=broken=edges"]);
        let (_, pod) = rendered.split_once("\n  name: broken\n").expect("the pod");
        let pod = pod.split_once("\n---\n").map_or(pod, |(pod, _)| pod);
        for part in ["terminationGracePeriodSeconds: 20\n", "fsGroup: 65532\n", "protocol: UDP\n"] {
            assert!(pod.contains(part), "{helm}: no {part:?} in {pod}");
        }
    }
}

/// Every unit that the schema lets through counts in the drain as it does in the program.
#[test]
fn every_unit_of_a_duration_is_calculated() {
    let charts = Charts::build("helm4");
    for (window, seconds) in [
        ("15seconds", 27),
        ("2minutes", 132),
        ("1min 1sec", 73),
        ("1hour", 3612),
        ("1 hr", 3612),
        ("1day", 86_412),
        ("1500msec", 14),
        ("2000000us", 14),
        ("0", 12),
    ] {
        let rendered =
            charts.render("express-example", &["--set-string", &format!("pulsegate.config.drain.window={window}")]);
        let wanted = format!("sleep:\n              seconds: {seconds}\n");
        assert!(rendered.contains(&wanted), "{window}: {rendered}");
    }
}

#[test]
fn long_names_of_releases_stay_apart() {
    let charts = Charts::build("helm4");
    let [one, other] = ["a", "b"].map(|last| {
        let release = format!("{}{last}", "x".repeat(52));
        let mut command = charts.command();
        let rendered = succeed(command.args(["template", &release, "express-example"]));
        let name = rendered.lines().find_map(|line| line.strip_prefix("  name: ")).expect("a name").to_owned();
        assert!(name.len() <= 50, "{name}");
        name
    });
    assert_ne!(one, other);
}

#[test]
fn limits_that_just_suffice_are_accepted() {
    let accepted: &[&[&str]] = &[
        &["--kube-version=1.30.0"],
        &["--kube-version=v1.30.2-eks-1552ad0"],
        &["--set=pulsegate.terminationGracePeriodSeconds=28"],
        &["--set=global.region=eu"],
        &["--set=pulsegate.config.drain.window=1h 30m 2s"],
        &["--set=pulsegate.config.drain.delay=0s"],
        &["--set=pulsegate.resources.limits.memory=160Mi"],
        &["--set=pulsegate.resources.limits.memory=200000000"],
        &["--set-string=pulsegate.resources.limits.memory=2e8"],
        &["--set=pulsegate.config.limits.memory=234881024"],
        &["--set=pulsegate.resources.limits=null"],
        &["--set=pulsegate.image=registry:5000/a/pulsegate@sha256:0123"],
    ];
    for helm in HELMS {
        let charts = Charts::build(helm);
        for arguments in accepted {
            charts.render("express-example", arguments);
        }
    }
}
