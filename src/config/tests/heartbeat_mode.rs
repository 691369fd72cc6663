//! Compiled under `#[cfg(test)]` only.
//!
//! Which heartbeat `mode`, `profile` and `window` come to, layer over layer, and what of them is refused.

use std::sync::Arc;
use std::time::Duration;

use insta::assert_snapshot;

use super::{REQUIRED, messages, read_with, refusal, settings};
use crate::config::Settings;
use crate::heartbeat::{Builtin, Heartbeat, MessageTemplate, Policy, Profile, ProofOfLife, Role};
use crate::ws::Opcode;

/// `mode profile` of each route, the default last.
fn spoken(settings: &Settings) -> Vec<String> {
    let told = settings.routes.iter().map(|route| match &route.heartbeat {
        Heartbeat::Auto(_) => "auto".to_owned(),
        Heartbeat::Fixed(policy) => match policy.mode.profile() {
            Some(profile) => format!("{} {}", policy.mode.as_str(), profile.name),
            None => policy.mode.as_str().to_owned(),
        },
    });
    told.collect()
}

/// Returns the settings of [heartbeat] with these keys.
fn all(keys: &str) -> String {
    spoken(&settings(&format!("[heartbeat]\n{keys}"))).pop().expect("the default route")
}

/// Returns the settings of a route with `keys`, where [heartbeat] has `base`.
fn over(base: &str, keys: &str) -> String {
    let text = format!("[heartbeat]\n{base}\n[[route]]\npath = \"/a\"\n[route.heartbeat]\n{keys}");
    spoken(&settings(&text)).remove(0)
}

/// The messages about such a route.
fn refused_over(base: &str, keys: &str) -> String {
    messages(&format!("[heartbeat]\n{base}\n[[route]]\npath = \"/a\"\n[route.heartbeat]\n{keys}")).join("; ")
}

/// The profile of [heartbeat] with these keys.
fn profile(keys: &str) -> Arc<Profile> {
    let settings = settings(&format!("[heartbeat]\n{keys}"));
    Arc::clone(settings.routes[0].heartbeat.policy().mode.profile().expect("a profile"))
}

#[test]
fn a_profile_implies_its_mode() {
    assert_eq!(all(""), "protocol");
    assert_eq!(all("profile = \"auto\""), "auto");
    assert_eq!(all("profile = { send = \"a\", expect = \"b\" }"), "app custom");
    for builtin in Builtin::ALL {
        let name = builtin.name();
        let implied = builtin.roles()[0].as_str();
        assert_eq!(all(&format!("profile = \"{name}\"")), format!("{implied} {name}"));
        for role in [Role::App, Role::Answer, Role::Passive] {
            let keys = format!("[heartbeat]\nmode = \"{}\"\nprofile = \"{name}\"", role.as_str());
            if builtin.roles().contains(&role) {
                let mode = settings(&keys).routes[0].heartbeat.policy().mode.clone();
                assert_eq!(mode, builtin.mode(role));
            } else {
                assert_eq!(messages(&keys).len(), 1, "{keys}");
            }
        }
    }
}

#[test]
fn a_custom_profile_means_the_same_in_every_mode() {
    let keys = "profile = { send = \"a\", expect = \"b\", start_after = \"c\", max_len = \"1KiB\" }";
    let app = profile(keys);
    let frame = |profile: &Profile| profile.send.as_ref().map(|say| say.as_bytes().to_vec());
    assert_eq!(frame(&app), Some(b"\x81\x01a".to_vec()));
    assert!(app.asks.as_ref().is_some_and(|asks| asks.matches(Opcode::TEXT, b"a")), "the app may ask as well");
    assert!(app.expect.iter().any(|expect| expect.matches(Opcode::TEXT, b"b")));
    assert!(app.start_after.as_ref().is_some_and(|start| start.matches(Opcode::TEXT, b"c")));
    assert_eq!((app.name, app.max_len), ("custom", 1024));

    let answer = profile(&format!("mode = \"answer\"\n{keys}"));
    assert_eq!((frame(&answer), &answer.asks), (frame(&app), &None));
    let passive = profile(&format!("mode = \"passive\"\n{keys}"));
    assert_eq!((frame(&passive), &passive.asks, passive.proof), (None, &app.asks, ProofOfLife::Answers));
    let mute = profile("mode = \"passive\"\nprofile.expect = \"b\"");
    assert_eq!((frame(&mute), &mute.asks, mute.proof), (None, &None, ProofOfLife::Sends(Duration::from_secs(90))));
    for profile in [&answer, &passive, &mute] {
        assert_eq!(profile.expect, app.expect);
    }
    assert_eq!((&answer.start_after, mute.max_len), (&app.start_after, 256));
}

#[test]
fn texts_are_bytes_in_a_binary_profile() {
    let mqtt = profile("profile = { send = \"0xC000\", expect = \"0xd000\", opcode = \"binary\" }");
    assert_eq!(mqtt.send.as_ref().map(MessageTemplate::as_bytes), Some(&b"\x82\x02\xC0\x00"[..]));
    assert!(mqtt.expect[0].matches(Opcode::BINARY, b"\xD0\x00"));
    let plain = profile("profile = { send = \"ping\", expect = \"pong\", opcode = \"binary\" }");
    assert!(plain.expect[0].matches(Opcode::BINARY, b"pong"));
    let text = profile("profile = { send = \"0xC000\", expect = \"0xg\" }");
    assert!(text.expect[0].matches(Opcode::TEXT, b"0xg"), "in a text profile it is text");
}

#[test]
fn messages_are_compared_as_match_says() {
    let json = profile("profile = { send = '{\"type\":\"ping\"}', expect = '{\"type\":\"pong\"}', match = \"json\" }");
    assert!(json.expect[0].matches(Opcode::TEXT, b"{ \"id\": 1, \"type\": \"pong\" }"));
    assert!(json.asks.as_ref().is_some_and(|asks| asks.matches(Opcode::TEXT, b"{\"type\":\"ping\",\"id\":1}")));
    let prefix = profile("profile = { send = \"ping:\", expect = \"pong:\", match = \"prefix\" }");
    assert!(prefix.expect[0].matches(Opcode::TEXT, b"pong:17"));
    assert!(prefix.asks.as_ref().is_some_and(|asks| asks.matches(Opcode::TEXT, b"ping:17")));
    // What is only sent needs no likeness to anything.
    let plain = "profile = { send = \"ok\", expect = '{\"type\":\"alive\"}', match = \"json\" }";
    assert_eq!(all(&format!("mode = \"answer\"\n{plain}")), "answer custom");
    assert_snapshot!(refused_over(&format!("mode = \"answer\"\n{plain}"), "mode = \"app\""), @r#"`route[0].heartbeat.mode` cannot be "app": it does not fit `send` in the profile of [heartbeat] (`send` must be JSON: expected value at line 1 column 1)"#);
}

#[test]
fn what_a_route_says_lies_over_the_common_heartbeat() {
    let custom = "profile = { send = \"a\", expect = \"b\" }";
    assert_eq!(over("profile = \"signalr\"", "interval = \"1s\""), "passive signalr");
    assert_eq!(over("profile = \"signalr\"", "mode = \"off\""), "off");
    assert_eq!(over("profile = \"auto\"", "mode = \"protocol\""), "protocol");
    assert_eq!(over("mode = \"off\"", "profile = \"stomp\""), "passive stomp");
    assert_eq!(over("profile = \"mqtt\"", "profile = \"auto\""), "auto");
    assert_eq!(over("profile = \"auto\"", custom), "app custom");
    assert_eq!(over("profile = \"express-text\"", "mode = \"answer\""), "answer express-text");
    assert_eq!(
        over("mode = \"answer\"\nprofile = \"express-text\"", "profile = \"graphql-transport-ws\""),
        "app graphql-transport-ws",
        "the profile implies its own mode"
    );
    for mode in ["app", "answer", "passive"] {
        assert_eq!(over(custom, &format!("mode = \"{mode}\"")), format!("{mode} custom"));
    }
    // A profile is one thing: a table in a route stands for itself.
    assert_snapshot!(refused_over(custom, "profile = { expect = \"c\" }"), @"`route[0].heartbeat.profile.send` is missing: the proxy's probe of the client (set `send` in [route.heartbeat.profile])");
}

#[test]
fn routes_that_say_nothing_share_the_common_heartbeat() {
    for base in ["profile = \"auto\"", "profile = \"engine.io\"", "interval = \"1s\""] {
        let text = format!(
            "[heartbeat]\n{base}\n[[route]]\npath = \"/a\"\n[[route]]\npath = \"/b\"\nheartbeat.max_missed = 1"
        );
        let routes = settings(&text).routes;
        for route in &routes {
            let shared = match (&route.heartbeat, &routes[0].heartbeat) {
                (Heartbeat::Fixed(one), Heartbeat::Fixed(other)) => Arc::ptr_eq(one, other),
                (Heartbeat::Auto(one), Heartbeat::Auto(other)) => Arc::ptr_eq(one, other),
                _ => false,
            };
            assert!(shared, "{base}: {}", route.path);
        }
    }
}

#[test]
fn the_window_is_auto_or_a_duration() {
    let window = |keys: &str, route: &str| {
        let text = format!("[heartbeat]\n{keys}\n[[route]]\npath = \"/a\"\n[route.heartbeat]\n{route}");
        settings(&text).routes[0].heartbeat.policy().window
    };
    assert_eq!(window("", ""), None);
    assert_eq!(window("window = \"2m\"", ""), Some(Duration::from_secs(120)));
    assert_eq!(window("window = \"2m\"", "window = \"auto\""), None);
    let Heartbeat::Auto(auto) =
        settings("[heartbeat]\nprofile = \"auto\"\nwindow = \"2m\"").routes[0].heartbeat.clone()
    else {
        panic!("auto")
    };
    assert_eq!(auto.policy(Builtin::Phoenix).window, Some(Duration::from_secs(120)));
    assert_snapshot!(messages("[heartbeat]\nwindow = \"off\"").join("; "), @r#"`heartbeat.window` must be a duration such as "25s", or "auto" (write a number and its unit: ms, s, m, h or d)"#);
    assert_snapshot!(messages("[heartbeat]\nwindow = 90").join("; "), @r#"`heartbeat.window` must be a duration such as "25s", or "auto" (write "90s")"#);
}

#[test]
fn variables_set_profiles_too() {
    let with = |variables: &[(&str, &str)], text: &str| {
        read_with(&format!("{REQUIRED}{text}"), variables).unwrap_or_else(|report| panic!("{variables:?}\n{report}"))
    };
    let file = "[heartbeat]\nprofile = { send = \"a\", expect = \"b\", max_len = 3 }";
    let profile = ("PULSEGATE__HEARTBEAT__PROFILE", "engine.io");
    for text in ["", file] {
        assert_eq!(spoken(&with(&[profile], text)), ["passive engine.io"]);
    }
    let table = with(&[("PULSEGATE__HEARTBEAT__PROFILE", "{ send = \"a\", expect = \"b\" }")], "");
    assert_eq!(spoken(&table), ["app custom"]);
    // Word for word, whatever a text looks like to TOML; the keys beside it stay those of the file.
    for text in ["3", "true", "{}", "[7]", "pong"] {
        let settings = with(
            &[("PULSEGATE__HEARTBEAT__PROFILE__EXPECT", text), ("PULSEGATE__HEARTBEAT__PROFILE__MAX_LEN", "9")],
            file,
        );
        let policy: &Policy = settings.routes[0].heartbeat.policy();
        let profile = policy.mode.profile().expect("a profile");
        assert!(profile.expect[0].matches(Opcode::TEXT, text.as_bytes()), "{text}");
        assert!(profile.send.is_some());
    }
    let report = read_with(REQUIRED, &[("PULSEGATE__HEARTBEAT__PROFILE", "{ send = \"a\", opcode = \"txt\" }")]);
    assert_snapshot!(report.expect_err("no expect"), @r#"
    error: `heartbeat.profile.opcode` must be "text" or "binary"
    --> environment variable PULSEGATE__HEARTBEAT__PROFILE
     |
     | { send = "a", opcode = "txt" }
     | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean "text"?

    error: `heartbeat.profile.expect` is missing: the client's heartbeat
    --> environment variable PULSEGATE__HEARTBEAT__PROFILE
     |
     | { send = "a", opcode = "txt" }
     | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ set `expect` in [heartbeat.profile], or PULSEGATE__HEARTBEAT__PROFILE__EXPECT

    2 errors in the configuration
    "#);
}

#[test]
fn a_mode_from_the_environment_meets_the_profile_of_the_file() {
    let file = format!("{REQUIRED}[heartbeat]\nprofile = \"express-text\"");
    let mode = |mode| read_with(&file, &[("PULSEGATE__HEARTBEAT__MODE", mode)]);
    assert_eq!(spoken(&mode("answer").unwrap_or_else(|report| panic!("{report}"))), ["answer express-text"]);
    assert_eq!(spoken(&mode("off").unwrap_or_else(|report| panic!("{report}"))), ["off"]);
    assert_snapshot!(mode("protocol").expect_err("two heartbeats"), @r#"
    error: `heartbeat.mode` cannot be "protocol" beside a profile: they exclude each other
    --> environment variable PULSEGATE__HEARTBEAT__MODE
     |
     | protocol
     | ^^^^^^^^ leave out `mode` to use the profile, or `profile` for "protocol"

    1 error in the configuration
    "#);
}

#[test]
fn all_that_is_wrong_with_a_profile_is_told_at_its_place() {
    assert_snapshot!(refusal(r#"
[heartbeat.profile]
send = 7
expect = ""
opcode = "txt"
match = "regex"
start_after = "0123456789"
max_len = "5B"
sned = "ping"

[[route]]
path = "/a"
heartbeat = { mode = "answer", profile = { expect = '{"type": }', match = "json" } }

[[route]]
path = "/b"
heartbeat = { mode = "passive" }
"#), @r#"
    error: `heartbeat.profile.send` must be text
     --> config/proxy.toml:3:8
      |
    3 | send = 7
      |        ^ write "7"

    error: `heartbeat.profile.expect` must not be empty
     --> config/proxy.toml:4:10
      |
    4 | expect = ""
      |          ^^

    error: `heartbeat.profile.opcode` must be "text" or "binary"
     --> config/proxy.toml:5:10
      |
    5 | opcode = "txt"
      |          ^^^^^ did you mean "text"?

    error: `heartbeat.profile.match` must be "exact", "prefix" or "json"
     --> config/proxy.toml:6:9
      |
    6 | match = "regex"
      |         ^^^^^^^

    error: `heartbeat.profile.start_after` is longer than `max_len`: it has 10 bytes, max_len is 5
     --> config/proxy.toml:7:15
      |
    7 | start_after = "0123456789"
      |               ^^^^^^^^^^^^ set max_len = 10

    error: unknown key `sned` in [heartbeat.profile]
     --> config/proxy.toml:9:1
      |
    9 | sned = "ping"
      | ^^^^ did you mean `send`?

    error: `route[0].heartbeat.profile.send` is missing: the proxy's answer to the client
      --> config/proxy.toml:13:32
       |
    13 | heartbeat = { mode = "answer", profile = { expect = '{"type": }', match = "json" } }
       |                                ^^^^^^^ set `send` in [route.heartbeat.profile]

    error: `route[0].heartbeat.profile.expect` must be JSON: expected value at line 1 column 10
      --> config/proxy.toml:13:53
       |
    13 | heartbeat = { mode = "answer", profile = { expect = '{"type": }', match = "json" } }
       |                                                     ^^^^^^^^^^^^

    8 errors in the configuration
    "#);
}

#[test]
fn the_texts_of_a_profile_must_be_fit() {
    let of = |keys: &str| messages(&format!("[heartbeat]\nprofile = {{ {keys} }}")).join("; ");
    assert_snapshot!(of("send = \"a\", expect = \"\""), @"`heartbeat.profile.expect` must not be empty");
    assert_snapshot!(of("send = \"\", expect = \"b\""), @"`heartbeat.profile.send` must not be empty");
    assert_snapshot!(of("send = \"a\""), @"`heartbeat.profile.expect` is missing: the client's heartbeat (set `expect` in [heartbeat.profile], or PULSEGATE__HEARTBEAT__PROFILE__EXPECT)");
    assert_snapshot!(of("expect = \"b\""), @"`heartbeat.profile.send` is missing: the proxy's probe of the client (set `send` in [heartbeat.profile], or PULSEGATE__HEARTBEAT__PROFILE__SEND)");
    assert_snapshot!(of("send = \"a\", expect = 3"), @r#"`heartbeat.profile.expect` must be text (write "3")"#);
    assert_snapshot!(of("send = \"a\", expect = [\"b\"]"), @"`heartbeat.profile.expect` must be text");
    assert_snapshot!(of("send = \"a\", expect = \"pong\", max_len = 3"), @"`heartbeat.profile.expect` is longer than `max_len`: it has 4 bytes, max_len is 3 (set max_len = 4)");
    assert_snapshot!(of(&format!("send = \"a\", expect = \"{}\"", "x".repeat(257))), @"`heartbeat.profile.expect` is longer than `max_len`: it has 257 bytes, max_len is 256 (set max_len = 257)");
    assert_snapshot!(of(&format!("send = \"a\", expect = \"{}\", max_len = 4096", "x".repeat(4097))), @"`heartbeat.profile.expect` is longer than `max_len`: it has 4097 bytes, max_len is 4096 (no heartbeat may be longer than 4096 bytes)");
    for (max_len, fits) in [
        ("0", false),
        ("1", true),
        ("4096", true),
        ("\"4KiB\"", true),
        ("4097", false),
        ("-1", false),
        ("\"off\"", false),
    ] {
        let text = format!("[heartbeat]\nprofile = {{ send = \"a\", expect = \"b\", max_len = {max_len} }}");
        if fits {
            settings(&text);
        } else {
            assert_eq!(messages(&text), ["`heartbeat.profile.max_len` must be a size from 1 to 4096 bytes"]);
        }
    }
    let json = |expect: &str| of(&format!("send = '{{\"a\":\"b\"}}', expect = '{expect}', match = \"json\""));
    assert_snapshot!(json("{\"type\":"), @"`heartbeat.profile.expect` must be JSON: EOF while parsing a value at line 1 column 8");
    assert_snapshot!(json("{}"), @"`heartbeat.profile.expect` must be a JSON object or array with at least one text in it");
    assert_snapshot!(json("\"pong\""), @"`heartbeat.profile.expect` must be a JSON object or array with at least one text in it");
    let binary = |expect: &str| of(&format!("send = \"a\", expect = \"{expect}\", opcode = \"binary\""));
    assert_snapshot!(binary("0xC0Z0"), @r#"`heartbeat.profile.expect` must have nothing but hexadecimal digits behind "0x" ('Z' is none)"#);
    assert_snapshot!(binary("0xC00"), @r#"`heartbeat.profile.expect` must have two hexadecimal digits for each byte behind "0x" (there are 3)"#);
    assert_snapshot!(binary("0x"), @"`heartbeat.profile.expect` must not be empty");
}

#[test]
fn names_are_those_of_the_profiles() {
    let of = |value: &str| messages(&format!("[heartbeat]\nprofile = {value}")).join("; ");
    assert_snapshot!(of("\"engine-io\""), @r#"`heartbeat.profile` must be a table, or "auto", "engine.io", "graphql-transport-ws", "graphql-ws", "signalr", "stomp", "mqtt", "phoenix", "actioncable", "pusher" or "express-text" (did you mean "engine.io"?)"#);
    let helps = ["Socket.IO", "graphql-transport", "graphql_ws", "signal-r", "Auto", "subscriptions-transport-ws"];
    let helps = helps.map(|name| format!("{name}: {}", of(&format!("\"{name}\"")).rsplit_once(" (").expect("help").1));
    assert_snapshot!(helps.join("\n"), @r#"
    Socket.IO: did you mean "engine.io"?)
    graphql-transport: did you mean "graphql-transport-ws"?)
    graphql_ws: did you mean "graphql-ws"?)
    signal-r: did you mean "signalr"?)
    Auto: did you mean "auto"?)
    subscriptions-transport-ws: did you mean "graphql-ws"?)
    "#);
    assert_snapshot!(of("7"), @r#"`heartbeat.profile` must be a table, or "auto", "engine.io", "graphql-transport-ws", "graphql-ws", "signalr", "stomp", "mqtt", "phoenix", "actioncable", "pusher" or "express-text""#);
    assert_snapshot!(of("[\"engine.io\"]"), @r#"`heartbeat.profile` must be a table, or "auto", "engine.io", "graphql-transport-ws", "graphql-ws", "signalr", "stomp", "mqtt", "phoenix", "actioncable", "pusher" or "express-text""#);
    assert_snapshot!(messages("[heartbeat]\nmode = \"protocoll\"").join("; "), @r#"`heartbeat.mode` must be "protocol", "app", "answer", "passive" or "off" (did you mean "protocol"?)"#);
}

#[test]
fn mode_and_profile_must_go_together() {
    let of = |keys: &str| messages(&format!("[heartbeat]\n{keys}")).join("; ");
    assert_snapshot!(of("mode = \"app\""), @r#"`heartbeat.mode` cannot be "app" without a profile (set `profile` beside it: "graphql-transport-ws" or "express-text", or { send = …, expect = … })"#);
    assert_snapshot!(of("mode = \"passive\""), @r#"`heartbeat.mode` cannot be "passive" without a profile (set `profile` beside it: "engine.io", "graphql-ws", "signalr", "stomp", "mqtt", "phoenix", "actioncable" or "pusher", or { send = …, expect = … })"#);
    assert_snapshot!(of("mode = \"app\"\nprofile = \"engine.io\""), @r#"`heartbeat.mode` cannot be "app" with profile "engine.io" (engine.io is for "passive"; or name another `profile` here)"#);
    assert_snapshot!(of("mode = \"passive\"\nprofile = \"express-text\""), @r#"`heartbeat.mode` cannot be "passive" with profile "express-text" (express-text is for "app" or "answer"; or name another `profile` here)"#);
    assert_snapshot!(of("mode = \"passive\"\nprofile = \"auto\""), @r#"`heartbeat.mode` cannot be "passive" with profile "auto", which selects the mode at each upgrade (leave out `mode`, or name a `profile` other than "auto")"#);
    assert_eq!(
        spoken(&settings("[heartbeat]\nmode = \"off\"\nprofile = \"auto\"")),
        ["off"],
        "a switch that always fits"
    );
    assert_snapshot!(of("mode = \"protocol\"\nprofile = { expect = \"a\" }"), @r#"`heartbeat.mode` cannot be "protocol" beside a profile: they exclude each other (leave out `mode` to use the profile, or `profile` for "protocol")"#);
    assert_snapshot!(of("mode = \"app\"\nprofile = { expect = \"a\" }"), @"`heartbeat.profile.send` is missing: the proxy's probe of the client (set `send` in [heartbeat.profile], or PULSEGATE__HEARTBEAT__PROFILE__SEND)");
    assert_snapshot!(refused_over("", "mode = \"answer\""), @r#"`route[0].heartbeat.mode` cannot be "answer" without a profile (set `profile` beside it: "graphql-transport-ws" or "express-text", or { send = …, expect = … })"#);
    assert_snapshot!(refused_over("profile = \"auto\"", "mode = \"app\""), @r#"`route[0].heartbeat.mode` cannot be "app" with profile "auto" of [heartbeat], which selects the mode at each upgrade (leave out `mode`, or name a `profile` other than "auto")"#);
    assert_snapshot!(refused_over("profile = \"mqtt\"", "mode = \"app\""), @r#"`route[0].heartbeat.mode` cannot be "app" with profile "mqtt" of [heartbeat] (mqtt is for "passive"; or name another `profile` here)"#);
    assert_snapshot!(refused_over("mode = \"passive\"\nprofile.expect = \"a\"", "mode = \"app\""), @r#"`route[0].heartbeat.mode` cannot be "app": there is no `send` in the profile of [heartbeat] (set `send` there, or name a `profile` here)"#);
}

#[test]
fn what_builds_on_a_refusal_is_not_refused_again() {
    for base in
        ["profile = \"engin.io\"", "mode = \"of\"", "profile = { send = \"\", expect = \"b\" }", "mode = \"app\""]
    {
        let refused = refused_over(base, "mode = \"app\"");
        assert!(!refused.contains("; "), "{refused}");
    }
    for keys in ["mode = \"aps\"\nprofile = { expect = \"b\" }", "mode = \"app\"\nprofile = \"engin.io\""] {
        assert_eq!(messages(&format!("[heartbeat]\n{keys}")).len(), 1, "{keys}");
    }
}
