//! Tests of the output of `pulsegate check`.

mod heartbeats;

use std::fs;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use super::*;
use crate::config::TlsRole;
use crate::drain::DRAIN_MARGIN;

/// A configuration alone: no command of an app, and no variable that is not read.
fn subject<'a>(input: &'a Input, overrides: &'a Overrides, cache: &'a FileCache) -> Subject<'a> {
    Subject { input, overrides, started: None, unread: &[], cache }
}

/// A configuration file, removed on drop.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pulsegate-{}-{name}.toml", std::process::id()));
        fs::write(&path, text).expect("the temporary folder takes files");
        Self(path)
    }

    /// Returns the verdict, and the output with the file's path replaced.
    fn check(&self, format: OutputFormat, certificates: Result<(), &str>) -> (CheckResult, String) {
        let mut out = Vec::new();
        let fault = |role, file: &Path| {
            let fault = |error: &str| TlsFault { role, file: file.into(), what: error.to_owned(), help: None };
            certificates.err().map(fault).into_iter().collect()
        };
        let app = |app: &UpstreamSettings| {
            fault(TlsRole::Authorities, app.tls.as_ref().and_then(|tls| tls.ca.as_deref()).unwrap_or(&self.0))
        };
        let certificates = |tls: &TlsSettings| fault(TlsRole::PrivateKey, &tls.private_key);
        let input = Input::File(self.0.clone());
        let (overrides, cache) = Default::default();
        let subject = subject(&input, &overrides, &cache);
        let checked = check(subject, format, certificates, app, None, &mut out);
        let verdict = checked.expect("memory takes all");
        let out = String::from_utf8(out).expect("text");
        // The limit of open files depends on the machine.
        let out: String = out.split_inclusive('\n').filter(|line| !line.contains("open files")).collect();
        (verdict, out.replace(&self.0.display().to_string(), "FILE"))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const VALID: &str = r#"
[listen]
workers = 2
[tls]
certificate = "/tls.crt"
private_key = "/tls.key"
[upstream]
url = "unix:/run/app.sock"
[[route]]
path = "/live/"
heartbeat = { interval = "1500ms", timeout = "1s", max_missed = 3, adaptive = true }
limits = { message = "64KiB" }
[[route]]
path = "/raw/"
heartbeat.mode = "off"
"#;

#[test]
fn a_valid_configuration_is_described_in_a_few_lines() {
    let (verdict, out) = File::new("valid", VALID).check(OutputFormat::Human, Ok(()));
    assert_eq!(verdict, CheckResult::Valid);
    assert_snapshot!(out, @r#"
    FILE is valid.
      listens on   0.0.0.0:8443 for https and wss, 2 workers
      presents     /tls.crt
      passes on to unix:/run/app.sock, probed after 15s of silence, given up after 1m
      health on    0.0.0.0:9090 for probes and metrics, in plain HTTP
      admin on     /run/pulsegate/admin.sock, for its own user, if it can be opened
      ends within  27s: 5s announced, 15s to close WebSockets with 1012, 2s for the last answers, 5s to spare
                   wait 28 s before it is killed: terminationGracePeriodSeconds, TimeoutStopSec
      route        /live/  pinged after 1s 500ms of silence, a dead client is gone within 4.5 s (more where round trips are long), messages up to 65536 bytes
      route        /raw/   no heartbeat
      route        /       pinged after 25s of silence, a dead client is gone within 45 s

    warning: any web page can open WebSockets in the name of its visitors: set `allow` in [origins] to the origins of your own pages, such as "same-host"
    "#);
}

#[test]
fn a_valid_configuration_is_an_object_for_machines() {
    let (verdict, out) = File::new("valid-json", VALID).check(OutputFormat::Json, Ok(()));
    assert_eq!(verdict, CheckResult::Valid);
    let object: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(object["valid"], true);
    assert_eq!(object["errors"], json!([]));
    let bounds = object["serves"]["routes"].as_array().expect("routes").iter();
    let bounds: Vec<_> = bounds.map(|route| (route["path"].clone(), route["detection_s"].clone())).collect();
    assert_eq!(bounds, [(json!("/live/"), json!(4.5)), (json!("/raw/"), json!(null)), (json!("/"), json!(45.0))]);
}

/// A file with every key of the listener.
const FULL: &str = r#"
[listen]
workers = 1
proxy_protocol = { trusted = ["10.0.0.0/8"] }
redirect = "0.0.0.0:8080"
[tls]
certificate = "/tls.crt"
private_key = "/tls.key"
strict_sni = true
modern = true
client_auth = { mode = "optional", ca = "/clients.pem" }
hsts = "180d"
[[tls.sni]]
names = ["Shop.example", "*.shop.example"]
certificate = "/shop.crt"
private_key = "/shop.key"
[upstream]
url = "https://[::1]:3443"
tls = { ca = "/ca.pem", certificate = "/proxy.crt", private_key = "/proxy.key", server_name = "app.internal" }
source_addresses = ["::2"]
interval = "off"
[limits]
connections = 300
connections_per_ip = 200
handshakes_per_ip = 20
messages_per_second = 50
memory = "256MiB"
[origins]
allow = ["same-host", "https://*.app.example:443", "HTTP://localhost:3000"]
[forwarded]
trusted_proxies = ["10.0.0.1"]
rfc7239 = true
[drain]
delay = "0s"
window = "90s"
code = 4000
max_connection_age = "12h"
[admin]
health = "127.0.0.1:9090"
socket = "127.0.0.1:4040"
[[route]]
path = "/"
host = "Admin.app.example"
upstream = "unix:/run/admin.sock"
[[route]]
path = "/api/"
upstream = { response_timeout = "10m" }
[[route]]
path = "/public/"
host = "*.app.example"
origins = { allow = [] }
"#;

#[test]
fn a_listener_is_described_with_hosts_apps_origins_and_limits() {
    let (_, out) = File::new("full", FULL).check(OutputFormat::Human, Ok(()));
    assert_snapshot!(out, @"
    FILE is valid.
      listens on   0.0.0.0:8443 for https and wss, 1 worker
                   behind the PROXY protocol of 10.0.0.0/8 only
                   0.0.0.0:8080 for http, which is sent to https
      presents     /tls.crt
                   /shop.crt to shop.example, *.shop.example
                   no certificate for other names, or without a name
                   TLS 1.3 only
                   clients may present a certificate of /clients.pem
                   Strict-Transport-Security: max-age=15552000
      passes on to https://[::1]:3443, never probed
                   trusted by /ca.pem for app.internal, shown /proxy.crt
                   from ::2
      believes     the forwarded headers of 10.0.0.1/32
      limits       300 connections, 200 connections of one address, 20 handshakes a second of one address, 268435456 bytes held by all sessions
      health on    127.0.0.1:9090 for probes and metrics, in plain HTTP
      admin on     127.0.0.1:4040
      ends within  1m 37s: 0s announced, 1m 30s to close WebSockets with 4000, 2s for the last answers, 5s to spare
                   wait 98 s before it is killed: terminationGracePeriodSeconds, TimeoutStopSec
                   closes WebSockets at the age of 12h
      route        admin.app.example/     pinged after 25s of silence, a dead client is gone within 45 s, 50 messages a second
                                            to unix:/run/admin.sock, never probed
                                            lets in pages of same-host, https://*.app.example, http://localhost:3000
      route        *.app.example/public/  pinged after 25s of silence, a dead client is gone within 45 s, 50 messages a second
                                            lets in no pages
      route        /api/                  pinged after 25s of silence, a dead client is gone within 45 s, 50 messages a second
                                            to https://[::1]:3443, never probed
                                            has 10m to answer
                                            trusted by /ca.pem for app.internal, shown /proxy.crt
                                            from ::2
                                            lets in pages of same-host, https://*.app.example, http://localhost:3000
      route        /                      pinged after 25s of silence, a dead client is gone within 45 s, 50 messages a second
                                            lets in pages of same-host, https://*.app.example, http://localhost:3000
      overlaps     admin.app.example/ hides *.app.example/public/ on admin.app.example: the narrower host
                   admin.app.example/ hides /api/ on admin.app.example: a route for a host counts before one for any

    note: every program on this machine can administer the proxy at 127.0.0.1:4040: set `token_file` in [admin], or make `socket` the path of a unix socket
    ");
}

/// A file without TLS, and with a pinned key.
const PLAIN: &str = r#"
[listen]
workers = 1
[tls]
mode = "off"
[upstream]
url = "https://app.internal"
tls = { pin = "sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=" }
proxy_protocol = "v2"
[forwarded]
trusted_proxies = ["10.0.0.0/8"]
"#;

#[test]
fn a_listener_without_tls_is_described_with_the_proxies_that_it_trusts() {
    let file = File::new("plain", PLAIN);
    let (verdict, out) = file.check(OutputFormat::Human, Ok(()));
    assert_eq!(verdict, CheckResult::Valid, "{out}");
    assert_snapshot!(out.lines().take(6).collect::<Vec<_>>().join("\n"), @"
    FILE is valid.
      listens on   0.0.0.0:8443 for http and ws, only from the proxies that terminate TLS, 1 worker
      passes on to https://app.internal:443, probed after 15s of silence, given up after 1m
                   trusted by the key sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=
                   each connection with a PROXY header, and for one client only
      believes     the forwarded headers of 10.0.0.0/8
    ");
    let (_, out) = file.check(OutputFormat::Json, Ok(()));
    let object: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((&object["serves"]["tls_mode"], &object["serves"]["certificate"]), (&json!("off"), &Value::Null));
}

#[test]
fn the_limit_of_connections_is_explained() {
    let settings = |limits: &str| {
        let text = format!("{VALID}[limits]\n{limits}\n");
        let path = std::path::Path::new("proxy.toml");
        config::from_str(path, &text, &config::Environment::default(), &Overrides::default()).expect("valid")
    };
    let limit = |limits: &str| {
        let lines = listener::sentences(&settings(limits));
        let found = lines.into_iter().find(|(about, _)| *about == "limits");
        found.map_or_else(String::new, |(_, lines)| lines.join("\n"))
    };
    let Some(open_files) = crate::descriptors::highest_limit() else { return };
    let reserve = (64 + 2 * (8 + 64)).min(open_files / 2);
    let connections = (open_files - reserve) / 2;
    let expected =
        format!("{connections} connections: of {open_files} open files {reserve} are reserved, and each takes two");
    assert_eq!(limit(""), expected);
    assert_eq!(limit("connections = 7"), "7 connections");
    assert_eq!(limit("connections = \"off\""), "");
    assert_eq!(listener::open_files(&settings("connections = 7")).filter(|_| open_files > 1000), None);
    let needed = 2 * 100_000_000 + reserve;
    let warning = listener::open_files(&settings("connections = 100000000")).unwrap_or_default();
    let expected = format!("100000000 connections need {needed} open files, and the limit here is {open_files}: ");
    assert!(warning.starts_with(&expected) || open_files >= needed, "{warning}");
}

#[test]
fn an_edge_is_an_object_for_machines() {
    let (_, out) = File::new("full-json", FULL).check(OutputFormat::Json, Ok(()));
    let mut object = edge_alone(serde_json::from_str(&out).expect("JSON"));
    take_limits(&mut object);
    assert_snapshot!(format!("{object:#}"), @r#"
    {
      "errors": [],
      "notes": [
        "every program on this machine can administer the proxy at 127.0.0.1:4040: set `token_file` in [admin], or make `socket` the path of a unix socket"
      ],
      "serves": {
        "acme": null,
        "certificate": "/tls.crt",
        "client_auth": "optional",
        "client_ca": "/clients.pem",
        "hsts_s": 15552000,
        "http2": "on",
        "listen": "0.0.0.0:8443",
        "modern": true,
        "overlaps": [
          "admin.app.example/ hides *.app.example/public/ on admin.app.example: the narrower host",
          "admin.app.example/ hides /api/ on admin.app.example: a route for a host counts before one for any"
        ],
        "proxy_protocol": [
          "10.0.0.0/8"
        ],
        "redirect": "0.0.0.0:8080",
        "rfc7239": true,
        "routes": [
          {
            "host": "admin.app.example",
            "messages_per_second": 50,
            "origins": [
              "same-host",
              "https://*.app.example",
              "http://localhost:3000"
            ],
            "path": "/",
            "upstream": "unix:/run/admin.sock"
          },
          {
            "host": "*.app.example",
            "messages_per_second": 50,
            "origins": [],
            "path": "/public/",
            "upstream": "https://[::1]:3443"
          },
          {
            "host": null,
            "messages_per_second": 50,
            "origins": [
              "same-host",
              "https://*.app.example",
              "http://localhost:3000"
            ],
            "path": "/api/",
            "upstream": "https://[::1]:3443"
          },
          {
            "host": null,
            "messages_per_second": 50,
            "origins": [
              "same-host",
              "https://*.app.example",
              "http://localhost:3000"
            ],
            "path": "/",
            "upstream": "https://[::1]:3443"
          }
        ],
        "sni": [
          {
            "certificate": "/shop.crt",
            "names": [
              "shop.example",
              "*.shop.example"
            ]
          }
        ],
        "strict_sni": true,
        "tls_mode": "terminate",
        "trusted_proxies": [
          "10.0.0.1/32"
        ],
        "upstream": "https://[::1]:3443",
        "workers": 1
      },
      "valid": true,
      "warnings": []
    }
    "#);
}

#[test]
fn the_limits_are_an_object_for_machines() {
    let (_, out) = File::new("limits-json", FULL).check(OutputFormat::Json, Ok(()));
    let limits = take_limits(&mut edge_alone(serde_json::from_str(&out).expect("JSON")));
    assert_snapshot!(format!("{limits:#}"), @r#"
    {
      "connections": 300,
      "connections_auto": false,
      "connections_per_ip": 200,
      "handshake_s": 5.0,
      "handshakes_per_ip": 20,
      "header_bytes": 16384,
      "header_read_s": 10.0,
      "headers": 100,
      "keep_alive_s": 75.0,
      "memory_bytes": 268435456,
      "resets": 1000,
      "streams": 100,
      "websocket_streams": 100,
      "write_stall_s": 45.0
    }
    "#);
}

/// Removes the limits from the `object` of a check and returns them.
fn take_limits(object: &mut Value) -> Value {
    object["serves"].as_object_mut().expect("an object").remove("limits").expect("limits")
}

/// Returns the facts without heartbeats, limit of open files and operation.
fn edge_alone(mut object: Value) -> Value {
    for route in object["serves"]["routes"].as_array_mut().expect("routes") {
        let facts = route.as_object_mut().expect("an object");
        facts.retain(|key, _| matches!(key.as_str(), "path" | "host" | "upstream" | "origins" | "messages_per_second"));
    }
    object["serves"]["limits"].as_object_mut().expect("an object").remove("open_files");
    object["serves"].as_object_mut().expect("an object").retain(|key, _| !OPERATION.contains(&key.as_str()));
    object
}

const OPERATION: [&str; 4] = ["admin", "drain", "log", "otel"];

#[test]
fn operation_is_an_object_for_machines() {
    let (_, out) = File::new("operation-json", FULL).check(OutputFormat::Json, Ok(()));
    let object: Value = serde_json::from_str(&out).expect("JSON");
    let facts: Vec<String> = OPERATION.iter().map(|name| format!("{name}: {}", object["serves"][name])).collect();
    assert_snapshot!(facts.join("\n"), @r#"
    admin: {"closed_sessions":1000,"health":"127.0.0.1:9090","socket":"127.0.0.1:4040","tls":false,"token_file":null}
    drain: {"close_grace_s":2.0,"code":4000,"delay_s":0.0,"margin_s":5.0,"max_connection_age_s":43200.0,"total_s":97.0,"window_s":90.0}
    log: {"level":"info"}
    otel: null
    "#);
}

#[test]
fn an_admin_listener_is_described_with_its_token() {
    let mut token = tempfile::NamedTempFile::new().expect("make a temporary file");
    token.write_all(b"0123456789abcdef").expect("write it");
    let path = token.path().display().to_string();
    let said = |keys: &str| {
        let file = File::new("door", &format!("{VALID}[admin]\nhealth = \"off\"\n{keys}"));
        let (verdict, out) = file.check(OutputFormat::Human, Ok(()));
        assert_eq!(verdict, CheckResult::Valid, "{out}");
        assert!(!out.contains("health on") && !out.contains("0123456789abcdef"), "{out}");
        let lines = out.lines().filter(|line| line.contains("admin on") || line.starts_with("note"));
        lines.map(|line| line.trim().replace(&path, "TOKEN")).collect::<Vec<_>>().join("\n")
    };
    let token = format!("token_file = \"{path}\"\n");
    assert_eq!(said("socket = \"off\""), "");
    assert_snapshot!(said("socket = \"/run/own.sock\""), @"admin on     /run/own.sock, for its own user");
    assert_snapshot!(said(&token), @"admin on     /run/pulsegate/admin.sock, for its own user, if it can be opened, with the token of TOKEN");
    assert_snapshot!(said("socket = \"[::1]:4040\""), @"
    admin on     [::1]:4040
    note: every program on this machine can administer the proxy at [::1]:4040: set `token_file` in [admin], or make `socket` the path of a unix socket
    ");
    assert_snapshot!(said(&format!("{token}socket = \"[::1]:4040\"")), @"admin on     [::1]:4040, with the token of TOKEN");
    assert_snapshot!(said(&format!("{token}socket = \"0.0.0.0:4040\"\ntls = true")), @"admin on     0.0.0.0:4040 by TLS, with the token of TOKEN");
}

#[test]
fn the_longest_end_counts_the_most_patient_route() {
    let text = VALID.replace("heartbeat.mode = \"off\"", "heartbeat.close_grace = \"10500ms\"");
    let file = File::new("end", &format!("{text}[drain]\nwindow = \"1m\""));
    let (_, out) = file.check(OutputFormat::Human, Ok(()));
    let at = out.find("  ends within").expect("it is told");
    assert_snapshot!(out[at..].lines().take(2).collect::<Vec<_>>().join("\n"), @"
    ends within  1m 20s 500ms: 5s announced, 1m to close WebSockets with 1012, 10s 500ms for the last answers, 5s to spare
                 wait 82 s before it is killed: terminationGracePeriodSeconds, TimeoutStopSec
    ");
    let (_, out) = file.check(OutputFormat::Json, Ok(()));
    let object: Value = serde_json::from_str(&out).expect("JSON");
    let drain = &object["serves"]["drain"];
    assert_eq!((&drain["close_grace_s"], &drain["window_s"]), (&json!(10.5), &json!(60.0)));
    assert_eq!(drain["total_s"], json!(75.5 + DRAIN_MARGIN.as_secs_f64()));
}

#[test]
fn open_origins_are_warned_of_by_route() {
    let file = File::new("open", &VALID.replace("path = \"/raw/\"", "path = \"/raw/\"\norigins.allow = [\"null\"]"));
    let (verdict, out) = file.check(OutputFormat::Human, Ok(()));
    assert_eq!(verdict, CheckResult::Valid, "a warning is no error");
    assert_snapshot!(out, @r#"
    FILE is valid.
      listens on   0.0.0.0:8443 for https and wss, 2 workers
      presents     /tls.crt
      passes on to unix:/run/app.sock, probed after 15s of silence, given up after 1m
      health on    0.0.0.0:9090 for probes and metrics, in plain HTTP
      admin on     /run/pulsegate/admin.sock, for its own user, if it can be opened
      ends within  27s: 5s announced, 15s to close WebSockets with 1012, 2s for the last answers, 5s to spare
                   wait 28 s before it is killed: terminationGracePeriodSeconds, TimeoutStopSec
      route        /live/  pinged after 1s 500ms of silence, a dead client is gone within 4.5 s (more where round trips are long), messages up to 65536 bytes
                             lets in pages of any origin
      route        /raw/   no heartbeat
                             lets in pages of null
      route        /       pinged after 25s of silence, a dead client is gone within 45 s
                             lets in pages of any origin

    warning: any web page can open WebSockets on /live/, / in the name of its visitors: set `allow` in [origins] to the origins of your own pages, such as "same-host"
    "#);
    let (_, out) = file.check(OutputFormat::Json, Ok(()));
    let object: Value = serde_json::from_str(&out).expect("JSON");
    assert!(object["warnings"][0].as_str().is_some_and(|warning| warning.contains("on /live/, / in")), "{out}");
}

#[test]
fn the_files_for_apps_behind_tls_are_read() {
    let tls = "[tls]\ncertificate = \"/tls.crt\"\nprivate_key = \"/tls.key\"\n[upstream]\nurl = \"https://one\"\n";
    let url = "[[route]]\npath = \"/b/\"\nupstream = \"https://two\"\n";
    let table = "[[route]]\npath = \"/c/\"\nupstream = { tls = { ca = \"/three.pem\" } }\n";
    let file = File::new("apps", &[tls, url, table].concat());
    let (verdict, out) = file.check(OutputFormat::Human, Err("no such file"));
    assert_eq!(verdict, CheckResult::Invalid);
    // The first one is about the proxy's own certificate.
    let found: Vec<&str> = out.lines().filter(|line| line.starts_with("error")).skip(1).collect();
    let expected = [
        "error: `upstream.url` cannot be used: https://one:443: no such file",
        "error: `route[0].upstream` cannot be used: https://two:443: no such file",
        "error: `route[1].upstream.tls.ca` cannot be used: no such file",
    ];
    assert_eq!(found, expected, "{out}");
}

#[test]
fn certificates_are_read_even_where_something_else_is_wrong() {
    let file = File::new("certificates", &VALID.replace("workers = 2", "workers = 0"));
    let (verdict, out) = file.check(OutputFormat::Human, Err("/tls.key: no such file"));
    assert_eq!(verdict, CheckResult::Invalid);
    assert_snapshot!(out, @r#"
    error: `listen.workers` must be "auto" or a whole number from 1 to 1024
     --> FILE:3:11
      |
    3 | workers = 0
      |           ^ write "auto" for one worker for each CPU

    error: `tls.private_key` cannot be used: /tls.key: no such file
     --> FILE:6:15
      |
    6 | private_key = "/tls.key"
      |               ^^^^^^^^^^

    2 errors in the configuration
    "#);
}

#[test]
fn errors_are_objects_for_machines() {
    let file = File::new("errors-json", &VALID.replace("workers = 2", "wokers = 2\naddress = 1"));
    let (verdict, out) = file.check(OutputFormat::Json, Ok(()));
    assert_eq!(verdict, CheckResult::Invalid);
    assert_snapshot!(out, @r#"
    {
      "errors": [
        {
          "column": 1,
          "file": "FILE",
          "help": "did you mean `workers`?",
          "key": "listen.wokers",
          "line": 3,
          "message": "unknown key `wokers` in [listen]",
          "text": "wokers"
        },
        {
          "column": 11,
          "file": "FILE",
          "help": "write \"0.0.0.0:1\"",
          "key": "listen.address",
          "line": 4,
          "message": "`listen.address` must be an address and a port such as \"0.0.0.0:8443\" or \"[::]:8443\"",
          "text": "1"
        }
      ],
      "valid": false
    }
    "#);
}

#[test]
fn a_file_that_is_missing_is_an_error() {
    let mut out = Vec::new();
    let input = Input::from(Path::new("src/none.toml"));
    let (overrides, cache) = Default::default();
    let subject = subject(&input, &overrides, &cache);
    let verdict = check(subject, OutputFormat::Human, |_| Vec::new(), |_| Vec::new(), None, &mut out);
    assert_eq!(verdict.expect("memory takes all"), CheckResult::Invalid);
    assert_snapshot!(String::from_utf8_lossy(&out), @"
    error: cannot read src/none.toml: No such file or directory (os error 2)
    --> src/none.toml
     = help: name the file with -c (- is standard input), or do without one: --listen, --upstream, --certificate and --private-key, or PULSEGATE__ variables

    1 error in the configuration
    ");
}
