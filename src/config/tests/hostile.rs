//! Compiled under `#[cfg(test)]` only.
//!
//! No text, no variable and no flag makes the reader panic, and every finding is drawn.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::REQUIRED;
use crate::config::{AllowedOrigin, Environment, OriginPolicy, Overrides, Report, Settings, from_str};

/// Pieces from which broken configurations are put together.
const PIECES: [&str; 76] = [
    "origins",
    "allow",
    "forwarded",
    "trusted_proxies",
    "host",
    "url",
    "sni",
    "names",
    "source_addresses",
    "[\"https://*.a.example:1\"]",
    "\"same-host\"",
    "\"10.0.0.0/8\"",
    "\"::ffff:1.2.3.4/97\"",
    "\"*.a.example\"",
    "\"[::1]\"",
    "\"https://[::1]:3000\"",
    "://",
    "*.",
    "/",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "'",
    "\n",
    "\r\n",
    " ",
    "#",
    "\u{feff}",
    "é",
    "\u{0}",
    "listen",
    "tls",
    "upstream",
    "heartbeat",
    "limits",
    "log",
    "drain",
    "admin",
    "route",
    "path",
    "on_miss",
    "client",
    "code",
    "reason",
    "interval",
    "\"25s\"",
    "\"off\"",
    "\"disconnect\"",
    "1006",
    "-1",
    "1e999",
    "nan",
    "2026-01-01",
    "true",
    "profile",
    "mode",
    "send",
    "expect",
    "opcode",
    "match",
    "max_len",
    "\"passive\"",
    "\"binary\"",
    "\"json\"",
    "\"0xzz\"",
    "\"auto\"",
    "\"engine.io\"",
    "{\"type\":null}",
    "4096",
];

/// Keys of every form.
const KEYS: [&str; 51] = [
    "DRAIN__DELAY",
    "DRAIN__CODE",
    "DRAIN__MAX_CONNECTION_AGE",
    "ADMIN__HEALTH",
    "ADMIN__SOCKET",
    "ADMIN__TLS",
    "ADMIN__CLOSED_SESSIONS",
    "OTEL__ENDPOINT",
    "LISTEN__PROXY_PROTOCOL",
    "LISTEN__PROXY_PROTOCOL__TRUSTED",
    "LISTEN__REDIRECT",
    "TLS__SNI",
    "TLS__STRICT_SNI",
    "TLS__CLIENT_AUTH",
    "TLS__CLIENT_AUTH__MODE",
    "TLS__HSTS",
    "UPSTREAM__TLS",
    "UPSTREAM__TLS__SERVER_NAME",
    "UPSTREAM__SOURCE_ADDRESSES",
    "LIMITS__CONNECTIONS_PER_IP",
    "ORIGINS__ALLOW",
    "FORWARDED__TRUSTED_PROXIES",
    "FORWARDED__RFC7239",
    "LISTEN__ADDRESS",
    "LISTEN__WORKERS",
    "TLS__CERTIFICATE",
    "UPSTREAM__URL",
    "UPSTREAM__INTERVAL",
    "UPSTREAM__TIMEOUT",
    "HEARTBEAT__MODE",
    "HEARTBEAT__PROFILE",
    "HEARTBEAT__PROFILE__SEND",
    "HEARTBEAT__PROFILE__EXPECT",
    "HEARTBEAT__PROFILE__OPCODE",
    "HEARTBEAT__PROFILE__MATCH",
    "HEARTBEAT__PROFILE__START_AFTER",
    "HEARTBEAT__PROFILE__MAX_LEN",
    "HEARTBEAT__PROFILE__FOO",
    "HEARTBEAT__WINDOW",
    "HEARTBEAT__INTERVAL",
    "HEARTBEAT__JITTER",
    "HEARTBEAT__ON_MISS",
    "HEARTBEAT__ON_MISS__CLIENT__REASON",
    "HEARTBEAT__ON_MISS__UPSTREAM",
    "HEARTBEAT__MAX_MISSED",
    "HEARTBEAT__ADAPTIVE",
    "LIMITS__FRAME",
    "LIMITS__HEADER_BYTES",
    "LOG__LEVEL",
    "LOG",
    "ROUTE",
];

/// Texts for a host, an origin or a network, valid or not.
fn name() -> impl Strategy<Value = String> {
    let pieces =
        ["a", "A.example", "*.", "*", ".", ":", "//", "/", "[", "]", "::1", "10.0.0.1", "8", "é", "@", "https:", "-"];
    prop_oneof![4 => vec(select(pieces.to_vec()), 0..8).prop_map(|pieces| pieces.concat()), 1 => any::<String>()]
}

/// Asserts that a configuration is accepted or refused without a panic.
fn in_order(result: Result<Settings, Report>) {
    match result {
        Ok(settings) => {
            let last = settings.routes.last().expect("a route");
            assert!(&*last.path == "/" && last.host.is_none());
        }
        Err(report) => {
            assert!(!report.findings().is_empty());
            assert!(report.to_string().contains("error: "));
            assert!(serde_json::to_string(report.findings()).is_ok());
        }
    }
}

fn any_of_pieces() -> impl Strategy<Value = String> {
    vec(select(&PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

/// Texts of heartbeats, right and wrong, or none.
fn text_of_a_profile() -> impl Strategy<Value = Option<String>> {
    let fit = ["ping", "0xC000", "{\"type\":\"ping\"}", "[null,\"beat\"]", ""].map(str::to_owned);
    proptest::option::weighted(0.8, prop_oneof![3 => select(fit.to_vec()), 1 => any::<String>(), 1 => any_of_pieces()])
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        in_order(from_str(Path::new("a"), &text, &Environment::default(), &Overrides::default()));
    }

    #[test]
    fn any_pieces(text in any_of_pieces()) {
        in_order(from_str(Path::new("a"), &text, &Environment::default(), &Overrides::default()));
        in_order(from_str(Path::new("a"), &format!("{REQUIRED}{text}"), &Environment::default(), &Overrides::default()));
    }

    #[test]
    fn any_value_of_any_key(key in select(&KEYS), value in prop_oneof![any::<String>(), any_of_pieces()]) {
        let environment = [(format!("PULSEGATE__{key}"), value.clone())].into_iter().collect();
        let overrides = Overrides { upstream: Some(value), ..Overrides::default() };
        in_order(from_str(Path::new("a"), REQUIRED, &environment, &Overrides::default()));
        in_order(from_str(Path::new("a"), REQUIRED, &Environment::default(), &overrides));
    }

    #[test]
    fn any_profile(
        mode in select(&["", "app", "answer", "passive", "off"]),
        opcode in select(&["text", "binary"]),
        matching in select(&["exact", "prefix", "json"]),
        texts in [text_of_a_profile(), text_of_a_profile(), text_of_a_profile()],
        max_len in 0..5000_u32,
    ) {
        let [send, expect, start_after] = texts;
        let keys = [
            ("MODE", (!mode.is_empty()).then(|| mode.to_owned())),
            ("PROFILE__SEND", send),
            ("PROFILE__EXPECT", expect),
            ("PROFILE__START_AFTER", start_after),
            ("PROFILE__OPCODE", Some(opcode.to_owned())),
            ("PROFILE__MATCH", Some(matching.to_owned())),
            ("PROFILE__MAX_LEN", Some(max_len.to_string())),
        ];
        let set = keys.into_iter().filter_map(|(key, text)| Some((format!("PULSEGATE__HEARTBEAT__{key}"), text?)));
        let roles = ["app", "answer", "passive"].map(|mode| format!("[[route]]\npath = \"/{mode}\"\nheartbeat.mode = \"{mode}\"\n"));
        let text = format!("{REQUIRED}{}", roles.concat());
        in_order(from_str(Path::new("a"), &text, &set.collect(), &Overrides::default()));
    }

    #[test]
    fn any_names(name in name(), other in name()) {
        let list = format!("[{name:?}, {other:?}]");
        let keys = [
            ("LISTEN__PROXY_PROTOCOL__TRUSTED", list.clone()),
            ("TLS__SNI", format!("[{{ names = {list}, certificate = 'a', private_key = 'b' }}]")),
            ("UPSTREAM__URL", name.clone()),
            ("UPSTREAM__TLS__SERVER_NAME", other.clone()),
            ("UPSTREAM__SOURCE_ADDRESSES", list.clone()),
            ("ORIGINS__ALLOW", list.clone()),
            ("FORWARDED__TRUSTED_PROXIES", list),
            ("ROUTE", format!("[{{ path = '/a', host = {name:?}, upstream = {other:?} }}]")),
        ];
        for (key, text) in keys {
            let environment = [(format!("PULSEGATE__{key}"), text)].into_iter().collect();
            in_order(from_str(Path::new("a"), REQUIRED, &environment, &Overrides::default()));
        }
    }

    #[test]
    fn what_is_allowed_is_let_in(name in name()) {
        let environment = [("PULSEGATE__ORIGINS__ALLOW", format!("[{name:?}]"))].into_iter().collect();
        let read = from_str(Path::new("a"), REQUIRED, &environment, &Overrides::default());
        if let Ok(settings) = read && let OriginPolicy::Only(allowed) = &*settings.routes[0].origins {
            for origin in allowed {
                let written = origin.to_string().replace("*.", "a.");
                let is_word = *origin == AllowedOrigin::SameHost;
                assert_eq!(settings.routes[0].origins.allows(&written, "x"), !is_word, "{name} {written}");
            }
        }
    }

    #[test]
    fn any_variables(variables in vec(("(?i)PULSEGATE_{0,3}[a-z_.]{0,12}_{0,4}[a-z]{0,6}", any::<String>()), 0..6)) {
        let environment = variables.into_iter().collect();
        in_order(from_str(Path::new("a"), REQUIRED, &environment, &Overrides::default()));
    }
}

#[test]
fn depth_has_an_end() {
    let deep = [
        format!("x = {}1{}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("x = {}1{}", "{a=".repeat(10_000), "}".repeat(10_000)),
        format!("{}x = 1", "a.".repeat(10_000)),
        format!("[{}x]", "a.".repeat(10_000)),
    ];
    for text in deep {
        in_order(from_str(Path::new("a"), &text, &Environment::default(), &Overrides::default()));
        let environment = [(format!("PULSEGATE__{}", "A__".repeat(10_000)), text)].into_iter().collect();
        in_order(from_str(Path::new("a"), REQUIRED, &environment, &Overrides::default()));
    }
}
