//! Compiled under `#[cfg(test)]` only.
//!
//! What is shown of a configuration: all of it, where it came from, and so that it can be read again.

use std::collections::BTreeSet;
use std::path::Path;

use insta::assert_snapshot;

use super::token_file;
use crate::config::document::Document;
use crate::config::layers::Layers;
use crate::config::reader::TreeReader;
use crate::config::{EffectiveConfig, Environment, Overrides, Settings, from_str, resolve, sections, shown};

/// The required keys, with paths that mean the same from everywhere.
const REQUIRED: &str = r#"
[tls]
certificate = "/tls.crt"
private_key = "/tls.key"

[upstream]
url = "http://127.0.0.1:3000"
"#;

/// A key of nearly every form.
const FULL: &str = r#"
[listen]
address = "[::]:443"
workers = 3
proxy_protocol = { trusted = ["10.0.0.0/8", "2001:db8::1"] }
redirect = "[::]:80"
http2 = "no-websockets"

[tls]
certificate = "/tls.crt"
private_key = "/tls.key"
strict_sni = true
client_auth = { mode = "optional", ca = "/clients.pem" }
hsts = "180d"

[[tls.sni]]
names = ["Shop.example", "*.shop.example"]
certificate = "/shop.crt"
private_key = "/shop.key"

[[tls.sni]]
names = ["blog.example"]
certificate = "/blog.crt"
private_key = "/blog.key"

[upstream]
url = "https://app.internal"
tls = { ca = "/ca.pem", certificate = "/proxy.crt", private_key = "/proxy.key", server_name = "app" }
source_addresses = ["127.0.0.2"]
interval = "off"

[heartbeat]
profile = { send = 'say "ä"', expect = "yes\nno", max_len = "1KiB" }
interval = "1500ms"
jitter = 0
on_miss = { client = { reason = "gone" }, upstream = "disconnect" }

[limits]
connections = 500
header_bytes = 9000
message = "64KiB"
memory = "3GiB"

[origins]
allow = ["same-host", "https://*.app.example:444"]

[forwarded]
trusted_proxies = ["10.0.0.1"]

[drain]
code = 4000
delay = "0s"
max_connection_age = "36h"

[admin]
health = "off"
socket = "127.0.0.1:4040"

[log]
level = "warn,pulsegate::relay=debug,h2=off"

[[route]]
path = "/plain/"
heartbeat.mode = "off"

[[route]]
path = "/inherits/"
heartbeat.mode = "answer"

[[route]]
path = "/"
host = "*.app.example"
upstream = "unix:/run/admin.sock"
origins.allow = []
heartbeat.profile = "auto"

[[route]]
path = "/slow/"
upstream = { response_timeout = "10m", tls = { server_name = "slow" } }
limits = { message = "off", frame = 77 }
heartbeat = { mode = "protocol", on_miss.upstream.code = 4001 }

[[route]]
path = "/board/"
[route.heartbeat]
mode = "passive"
[route.heartbeat.profile]
expect = "0xC0"
opcode = "binary"
match = "prefix"
start_after = "0x00"

[[route]]
path = "/chat/"
upstream = { url = "http://[::1]:3001" }
heartbeat = { profile = "graphql-transport-ws", mode = "answer" }
"#;

fn both(text: &str, variables: &[(&str, &str)], overrides: &Overrides) -> (Settings, EffectiveConfig) {
    let document = Document::parse(Path::new("config/proxy.toml"), text.to_owned()).expect("TOML");
    let environment: Environment = variables.iter().copied().collect();
    let read = resolve(document, &environment, overrides, |_| Vec::new(), |_| Vec::new());
    shown(read.unwrap_or_else(|report| panic!("{text}\nrefused:\n{report}")))
}

fn of(text: &str) -> (Settings, EffectiveConfig) {
    both(text, &[], &Overrides::default())
}

fn again(text: &str) -> Settings {
    let read = from_str(Path::new("/elsewhere/a.toml"), text, &Environment::default(), &Overrides::default());
    read.unwrap_or_else(|report| panic!("{text}\nrefused:\n{report}"))
}

/// The keys that are asked for in `text`, as they are shown outside of lists.
fn asked(text: &str) -> BTreeSet<String> {
    let document = Document::parse(Path::new("a"), text.to_owned()).expect("TOML");
    let (layers, findings) = Layers::new(document, &Environment::default(), &Overrides::default());
    let reader = TreeReader::new(&layers, findings);
    let _ = sections::read(&reader.root(), |_| Vec::new(), |_| Vec::new());
    reader.keys().iter().filter(|key| !key.in_list()).map(ToString::to_string).collect()
}

#[test]
fn what_is_shown_is_a_configuration_that_means_the_same() {
    let token = token_file("0123456789abcdef");
    let token = format!("[admin]\ntoken_file = \"{}\"", token.path().display());
    let example = "[heartbeat]\nprofile = \"auto\"\n[[route]]\npath = \"/\"\nheartbeat = { profile = \"mqtt\", window = \"99s\" }";
    let off = "[heartbeat]\nmode = \"off\"\nprofile = { send = \"a\", expect = \"b\" }\n[limits]\nmemory = 18446744073709551615";
    for text in ["", &token, example, "[origins]\nallow = []"] {
        let (settings, shown) = of(&format!("{REQUIRED}\n{text}"));
        assert_eq!(again(&shown.to_string()), settings, "{shown}");
        assert_eq!(again(&shown.toml(true)), settings, "{}", shown.toml(true));
    }
    let (settings, shown) = of(FULL);
    assert_eq!(again(&shown.to_string()), settings, "{shown}");
    assert_eq!(again(&shown.toml(true)), settings, "{}", shown.toml(true));
    let (_, twice) = of(&shown.to_string());
    assert_eq!(twice.to_string(), shown.to_string(), "what is shown of it is the same");
    let variables =
        [("PULSEGATE__LIMITS__MEMORY", "18446744073709551615"), ("PULSEGATE__HEARTBEAT__STALL_GUARD", "3ms")];
    let (settings, shown) = both(
        &format!("{REQUIRED}\n{}", off.replace("memory = 18446744073709551615", "")),
        &variables,
        &Overrides::default(),
    );
    assert_eq!(again(&shown.to_string()), settings, "{shown}");
}

#[test]
fn every_key_is_shown() {
    let (_, shown) = of(REQUIRED);
    let object = shown.json();
    let mut keys: BTreeSet<String> = object.as_object().expect("an object").keys().cloned().collect();
    assert!(keys.remove("route") && keys.remove("tls.sni"));
    assert_eq!(keys, asked(REQUIRED));
    assert_eq!(object["admin.token_file"], serde_json::json!({ "value": null, "origin": "default" }));
    assert_eq!(object["route"], serde_json::json!([]));

    // Where an inline table or a list stands for a key, it is the key that is asked for.
    let (_, shown) = of(FULL);
    let keys: BTreeSet<String> = shown.json().as_object().expect("an object").keys().cloned().collect();
    let instead = |key: &String| keys.iter().any(|shown| shown.starts_with(&format!("{key}.")));
    let missing: Vec<String> = asked(FULL).into_iter().filter(|key| !keys.contains(key) && !instead(key)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_key_tells_where_it_came_from() {
    let text = format!(
        "{REQUIRED}
[heartbeat]
interval = \"30s\"
profile = {{ send = \"a\", expect = \"b\" }}
on_miss.upstream = \"disconnect\"
[[route]]
path = \"/a/\"
upstream = \"unix:/run/a.sock\"
heartbeat = {{ timeout = \"7s\", on_miss.upstream.code = 4001 }}
[[route]]
path = \"/b/\"
heartbeat.profile = \"engine.io\"
upstream.response_timeout = \"2m\"
"
    );
    let variables = [
        ("PULSEGATE__UPSTREAM__CONNECT_TIMEOUT", "2s"),
        ("pulsegate__drain", "{ window = \"90s\" }"),
        ("PULSEGATE__HEARTBEAT__PROFILE__EXPECT", "{\"a\":1}"),
    ];
    let overrides = Overrides { listen: Some("127.0.0.1:0".to_owned()), ..Overrides::default() };
    let (_, shown) = both(&text, &variables, &overrides);
    let text = shown.toml(true);
    let set: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.ends_with("# default")).collect();
    assert_snapshot!(set.join("\n"), @r#"
    [listen]
    address = "127.0.0.1:0"  # --listen
    [tls]
    certificate = "/tls.crt"                     # config/proxy.toml:3
    private_key = "/tls.key"                     # config/proxy.toml:4
    # acme.ca is not set
    # acme.external_account.key_id is not set
    # acme.external_account.key_file is not set
    # client_auth.ca is not set
    [upstream]
    url = "http://127.0.0.1:3000"  # config/proxy.toml:7
    connect_timeout = "2s"         # environment PULSEGATE__UPSTREAM__CONNECT_TIMEOUT
    [heartbeat]
    mode = "app"                                 # environment PULSEGATE__HEARTBEAT__PROFILE__EXPECT
    profile.send = "a"                           # config/proxy.toml:11
    profile.expect = '{"a":1}'                   # environment PULSEGATE__HEARTBEAT__PROFILE__EXPECT
    # profile.start_after is not set
    interval = "30s"                             # config/proxy.toml:10
    on_miss.upstream = "disconnect"              # config/proxy.toml:12
    [limits]
    [origins]
    # allow is not set
    [forwarded]
    [drain]
    window = "90s"              # environment pulsegate__drain
    [admin]
    # token_file is not set
    [log]
    [otel]
    [[route]]
    path = "/a/"                                # config/proxy.toml:14
    upstream.url = "unix:/run/a.sock"           # config/proxy.toml:15
    upstream.connect_timeout = "2s"             # environment PULSEGATE__UPSTREAM__CONNECT_TIMEOUT
    heartbeat.mode = "app"                      # environment PULSEGATE__HEARTBEAT__PROFILE__EXPECT
    heartbeat.profile.send = "a"                # config/proxy.toml:11
    heartbeat.profile.expect = '{"a":1}'        # environment PULSEGATE__HEARTBEAT__PROFILE__EXPECT
    # heartbeat.profile.start_after is not set
    heartbeat.interval = "30s"                  # config/proxy.toml:10
    heartbeat.timeout = "7s"                    # config/proxy.toml:16
    heartbeat.on_miss.upstream.code = 4001      # config/proxy.toml:16
    [[route]]
    path = "/b/"                               # config/proxy.toml:18
    upstream.url = "http://127.0.0.1:3000"     # config/proxy.toml:7
    upstream.connect_timeout = "2s"            # environment PULSEGATE__UPSTREAM__CONNECT_TIMEOUT
    upstream.response_timeout = "2m"           # config/proxy.toml:20
    heartbeat.mode = "passive"                 # config/proxy.toml:19
    heartbeat.profile = "engine.io"            # config/proxy.toml:19
    heartbeat.interval = "30s"                 # config/proxy.toml:10
    heartbeat.on_miss.upstream = "disconnect"  # config/proxy.toml:12
    "#);
    let object = shown.json();
    let origin = |key: &str| object[key]["origin"].as_str().unwrap_or_default().to_owned();
    assert_eq!(origin("listen.address"), "--listen");
    assert_eq!(origin("drain.window"), "environment pulsegate__drain");
    assert_eq!(origin("drain.delay"), "default");
    assert_eq!(origin("heartbeat.interval"), "config/proxy.toml:10");
    assert_eq!(object["route"][0]["upstream.url"]["origin"], "config/proxy.toml:15");
    assert_eq!(object["route"][0]["upstream.url"]["value"], "unix:/run/a.sock");
    assert_eq!(object["route"][1]["upstream.url"]["origin"], "config/proxy.toml:7");
}

#[test]
fn paths_are_shown_from_the_root_on() {
    let relative = super::REQUIRED.replace("http://127.0.0.1:3000", "unix:run/app.sock");
    let (_, shown) = of(&relative);
    let here = std::env::current_dir().expect("a working directory").join("config");
    let object = shown.json();
    assert_eq!(object["tls.certificate"]["value"], here.join("tls.crt").display().to_string());
    assert_eq!(object["upstream.url"]["value"], format!("unix:{}", here.join("run/app.sock").display()));
    assert_eq!(of(&shown.to_string()).0, again(&shown.to_string()), "whatever the folder");
}

#[test]
fn a_token_is_no_part_of_it() {
    let file = token_file("correct-horse-battery");
    let text = format!("{REQUIRED}\n[admin]\ntoken_file = \"{}\"", file.path().display());
    let (_, shown) = of(&text);
    let all = format!("{shown} {} {:?} {}", shown.toml(true), shown, shown.json());
    assert!(!all.contains("horse"), "{all}");
    assert_eq!(shown.json()["admin.token_file"]["value"], file.path().display().to_string());
}

#[test]
fn names_that_play_tricks_do_not_end_a_comment() {
    let document = Document::parse(Path::new("a\n[evil]\nb.toml"), REQUIRED.to_owned()).expect("TOML");
    let read = resolve(document, &Environment::default(), &Overrides::default(), |_| Vec::new(), |_| Vec::new());
    let (settings, shown) = shown(read.expect("valid"));
    assert_eq!(again(&shown.toml(true)), settings);
}
