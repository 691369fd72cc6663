//! Compiled under `#[cfg(test)]` only.
//!
//! Which layer wins, and where relative paths start from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Command};

use super::{REQUIRED, read_with, settings};
use crate::config::{Environment, Level, LogFormat, Overrides, Settings, UpstreamTarget, from_str, load_alone};
use crate::heartbeat::{CloseSpec, Policy};

fn interval(settings: &Settings) -> Duration {
    settings.routes[0].heartbeat.policy().interval
}

#[test]
fn each_layer_lies_over_the_one_before() {
    let text = format!("{REQUIRED}\n[log]\nlevel = \"warn\"\nformat = \"json\"\n[listen]\naddress = \"127.0.0.1:1\"");
    let environment: Environment =
        [("PULSEGATE__LOG__LEVEL", "debug"), ("PULSEGATE__LISTEN__ADDRESS", "127.0.0.1:2")].into_iter().collect();
    let overrides = Overrides { listen: Some("127.0.0.1:3".to_owned()), ..Overrides::default() };
    let path = Path::new("proxy.toml");
    let settings = from_str(path, &text, &environment, &overrides).expect("valid");
    assert_eq!(settings.upstream.connect_timeout, Duration::from_secs(5), "the default");
    assert_eq!(settings.log.format, LogFormat::Json, "the file over the default");
    assert_eq!(settings.log.level, Level::Debug.into(), "the environment over the file");
    assert_eq!(settings.listen.address.port(), 3, "the flag over the environment");
}

#[test]
fn variables_are_read_whatever_their_case() {
    let settings = read_with(
        REQUIRED,
        &[
            ("pulsegate__heartbeat__interval", "10s"),
            ("PulseGate__Heartbeat__On_Miss__Client__Reason", "1234"),
            ("PULSEGATE__HEARTBEAT__MAX_MISSED", "3"),
            ("PULSEGATE__HEARTBEAT__ADAPTIVE", " true\n"),
            ("PULSEGATE__HEARTBEAT__ON_MISS__UPSTREAM", "{ code = 4001 }"),
            ("PULSEGATE__ROUTE", "[{ path = \"/live/\", limits = { frame = 10 } }]"),
        ],
    )
    .unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(interval(&settings), Duration::from_secs(10));
    let policy = settings.routes[1].heartbeat.policy();
    assert_eq!(policy.on_miss.client, CloseSpec::new(1012, "1234"), "text stays text");
    assert_eq!((policy.max_missed, policy.adaptive), (3, true));
    assert_eq!(settings.routes[0].limits.frame, Some(10), "a list is set as a whole");
}

#[test]
fn a_service_called_pulsegate_does_not_break_the_start() {
    let service = [
        ("PULSEGATE_PORT", "tcp://10.0.0.1:8443"),
        ("PULSEGATE_SERVICE_HOST", "10.0.0.1"),
        ("PULSEGATE_PORT_8443_TCP_PROTO", "tcp"),
        ("PULSEGATE", "1"),
    ];
    assert_eq!(read_with(REQUIRED, &service), read_with(REQUIRED, &[]));
    assert!(read_with(REQUIRED, &[]).is_ok());
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let environment: Environment =
        [("PULSEGATE__TLS__CERTIFICATE", OsStr::from_bytes(b"/tls/\xff.crt"))].into_iter().collect();
    let refused = from_str(Path::new("a"), REQUIRED, &environment, &Overrides::default());
    let report = refused.expect_err("not UTF-8").to_string();
    assert!(report.contains("environment variable PULSEGATE__TLS__CERTIFICATE"), "{report}");
}

#[test]
fn relative_paths_start_where_they_were_written() {
    let overrides = Overrides { private_key: Some("by-flag.key".to_owned()), ..Overrides::default() };
    let at = |path: &str, environment: &[(&str, &str)]| {
        let environment = environment.iter().copied().collect();
        let settings = from_str(Path::new(path), REQUIRED, &environment, &overrides).expect("valid");
        settings.tls.terminate().expect("by default").clone()
    };
    let tls = at("/etc/pulsegate/proxy.toml", &[]);
    assert_eq!(tls.certificate, PathBuf::from("/etc/pulsegate/tls.crt"));
    assert_eq!(tls.private_key, PathBuf::from("by-flag.key"));
    assert_eq!(at("proxy.toml", &[]).certificate, PathBuf::from("tls.crt"));
    let variable = [("PULSEGATE__TLS__CERTIFICATE", "by-variable.crt")];
    assert_eq!(at("/etc/pulsegate/proxy.toml", &variable).certificate, PathBuf::from("by-variable.crt"));
}

#[test]
fn every_flag_sets_its_key_and_errors_name_it() {
    let flags = Overrides::augment_args(Command::new("run"));
    let long: Vec<String> = flags.get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    let wrong = || Some(String::new());
    let overrides = Overrides {
        listen: wrong(),
        upstream: wrong(),
        certificate: wrong(),
        private_key: wrong(),
        domain: vec![String::new()],
        email: vec![String::new()],
        log_level: wrong(),
        log_format: wrong(),
    };
    let refused = from_str(Path::new("a"), REQUIRED, &Environment::default(), &overrides);
    let mut named: Vec<String> =
        refused.expect_err("all empty").findings().iter().map(|finding| finding.place.to_string()).collect();
    let mut flags: Vec<String> = long.iter().map(|flag| format!("flag {flag}")).collect();
    flags.sort();
    named.sort();
    assert_eq!(named, flags);
}

#[test]
fn a_route_overrides_only_what_it_names() {
    let settings = settings(
        r#"
        [heartbeat]
        interval = "30s"
        timeout = "7s"
        [limits]
        message = "1MiB"
        [[route]]
        path = "/a/"
        [[route]]
        path = "/a/b/"
        limits = { frame = "1KiB" }
        [route.heartbeat]
        interval = "5s"
        on_miss.client.reason = "too slow"
        "#,
    );
    let paths: Vec<&str> = settings.routes.iter().map(|route| &*route.path).collect();
    assert_eq!(paths, ["/a/b/", "/a/", "/"], "the longest prefix first, the default last");
    let [deep, shallow, default] = settings.routes.as_slice() else { panic!("{settings:?}") };
    assert_eq!(
        (deep.heartbeat.policy().interval, deep.heartbeat.policy().timeout),
        (Duration::from_secs(5), Duration::from_secs(7))
    );
    assert_eq!(deep.heartbeat.policy().on_miss.client, CloseSpec::new(1012, "too slow"));
    assert_eq!((deep.limits.frame, deep.limits.message), (Some(1024), Some(1 << 20)));
    assert_eq!(shallow.heartbeat, default.heartbeat);
    assert_eq!(interval(&settings), Duration::from_secs(5));
    let global = Policy { interval: Duration::from_secs(30), timeout: Duration::from_secs(7), ..Policy::default() };
    assert_eq!(**default.heartbeat.policy(), global);
}

#[test]
fn a_route_for_everything_takes_the_place_of_the_default() {
    let settings = settings("[[route]]\npath = \"/\"\nheartbeat.mode = \"off\"");
    assert_eq!(settings.routes.len(), 1);
    assert_ne!(settings.routes[0].heartbeat.policy().mode, Policy::default().mode);
}

#[test]
fn a_file_is_read_from_its_exact_path() {
    let report = load_alone(Path::new("Cargo.toml/none.toml")).expect_err("there is none");
    assert!(report.to_string().contains("cannot read Cargo.toml/none.toml"), "{report}");
    // The name exists further up; a search through the parents would find it.
    let report = load_alone(Path::new("src/Cargo.toml")).expect_err("not in this folder");
    assert_eq!(report.findings()[0].place.to_string(), "src/Cargo.toml");
}

#[test]
fn the_required_keys_suffice() {
    let settings = settings("");
    assert_eq!(settings.listen.address.to_string(), "0.0.0.0:8443");
    assert_eq!(settings.upstream.target, UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: 3000 });
    assert_eq!(**settings.routes[0].heartbeat.policy(), Policy::default());
}
