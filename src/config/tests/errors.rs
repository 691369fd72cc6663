//! Compiled under `#[cfg(test)]` only.
//!
//! How errors read, and that each form refuses what it must.

use insta::assert_snapshot;

use super::{REQUIRED, messages, read, read_with, refusal, settings};
use crate::config::{Location, Report, UpstreamProbe};
use crate::heartbeat::{CloseSpec, UpstreamEnd};

#[test]
fn all_errors_are_told_at_once_in_the_order_of_the_file() {
    assert_snapshot!(refusal(r#"
[listen]
address = ":8443"

[heartbeat]
intervall = "10s"
timeout = 20
on_miss.client = { code = 1006, reson = "gone" }

[orgins]
allow = ["same-host"]

[[route]]
path = "live/"
heartbeat = { liveness = "any-bytes", handshake = "1s" }
"#), @r#"
error: `listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443"
 --> config/proxy.toml:3:11
  |
3 | address = ":8443"
  |           ^^^^^^^ write "0.0.0.0:8443"

error: unknown key `intervall` in [heartbeat]
 --> config/proxy.toml:6:1
  |
6 | intervall = "10s"
  | ^^^^^^^^^ did you mean `interval`?

error: `heartbeat.timeout` must be a duration such as "25s"
 --> config/proxy.toml:7:11
  |
7 | timeout = 20
  |           ^^ write "20s"

error: `heartbeat.on_miss.client.code` cannot be 1006: RFC 6455 forbids it in a Close frame
 --> config/proxy.toml:8:27
  |
8 | on_miss.client = { code = 1006, reson = "gone" }
  |                           ^^^^ 4000 to 4999 are the app's own; after 1012 clients reconnect

error: unknown key `reson` in [heartbeat.on_miss.client]
 --> config/proxy.toml:8:33
  |
8 | on_miss.client = { code = 1006, reson = "gone" }
  |                                 ^^^^^ did you mean `reason`?

error: unknown key `orgins`
  --> config/proxy.toml:10:2
   |
10 | [orgins]
   |  ^^^^^^ did you mean `origins`?

error: `route[0].path` must begin with "/"
  --> config/proxy.toml:14:8
   |
14 | path = "live/"
   |        ^^^^^^^ write "/live/"

error: `route[0].heartbeat.liveness` must be "any_bytes", "any_frame" or "pong_only"
  --> config/proxy.toml:15:26
   |
15 | heartbeat = { liveness = "any-bytes", handshake = "1s" }
   |                          ^^^^^^^^^^^ did you mean "any_bytes"?

error: unknown key `handshake` in [route.heartbeat]
  --> config/proxy.toml:15:39
   |
15 | heartbeat = { liveness = "any-bytes", handshake = "1s" }
   |                                       ^^^^^^^^^ `handshake` belongs in [limits]

9 errors in the configuration
"#);
}

#[test]
fn what_is_missing_is_named_where_it_would_stand() {
    let report = read("[tls]\ncertificate = \"a\"").expect_err("two keys are missing");
    assert_snapshot!(report, @"
    error: `upstream.url` is missing: where the app listens
    --> config/proxy.toml
     = help: set `url` in [upstream], PULSEGATE__UPSTREAM__URL, or --upstream

    error: `tls.private_key` is missing: the PEM file of the certificate's key
     --> config/proxy.toml:1:2
      |
    1 | [tls]
      |  ^^^ set `private_key` in [tls], PULSEGATE__TLS__PRIVATE_KEY, or --private-key

    2 errors in the configuration
    ");
}

#[test]
fn variables_are_named_as_they_are_spelt() {
    let report = read_with(
        REQUIRED,
        &[
            ("PULSEGATE__HEARTBEAT__INTERVALL", "10s"),
            ("pulsegate__heartbeat__timeout", "soon"),
            ("PULSEGATE__HEARTBEAT__ON_MISS", "{ client = { kode = 4000 } }"),
            ("PULSEGATE__LOG", "debug"),
            ("PULSEGATE__ROUTE__PATH", "/"),
            ("PULSEGATE__", "1"),
        ],
    )
    .expect_err("nothing of it is right");
    assert_snapshot!(report, @r#"
    error: unknown key ``
    --> environment variable PULSEGATE__
     = help: known here: admin, drain, forwarded, heartbeat, limits, listen, log, origins, otel, route, tls, upstream

    error: unknown key `intervall` in [heartbeat]
    --> environment variable PULSEGATE__HEARTBEAT__INTERVALL
     = help: did you mean `interval`?

    error: unknown key `kode` in [heartbeat.on_miss.client]
    --> environment variable PULSEGATE__HEARTBEAT__ON_MISS
     |
     | { client = { kode = 4000 } }
     | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean `code`?

    error: `log` must be a table
    --> environment variable PULSEGATE__LOG
     |
     | debug
     | ^^^^^ write [log] and its keys below it, or log = { … }

    error: `route` must be a list of tables
    --> environment variable PULSEGATE__ROUTE__PATH
     |
     | /
     | ^ write [[route]] in the file

    error: `heartbeat.timeout` must be a duration such as "25s"
    --> environment variable pulsegate__heartbeat__timeout
     |
     | soon
     | ^^^^ write a number and its unit: ms, s, m, h or d

    6 errors in the configuration
    "#);
}

#[test]
fn what_is_not_toml_has_its_place() {
    assert_snapshot!(refusal("[listen]\naddress = 0.0.0.0:8443"), @r#"
    error: not valid TOML: expected newline, `#`
     --> config/proxy.toml:2:14
      |
    2 | address = 0.0.0.0:8443
      |              ^ text stands in quotes: write address = "0.0.0.0:8443"

    1 error in the configuration
    "#);
    assert_snapshot!(refusal("[log]\nlevel = \"info\"\nlevel = \"warn\""), @r#"
    error: not valid TOML: duplicate key `level` in table `log`
     --> config/proxy.toml:3:1
      |
    3 | level = "warn"
      | ^ line 2 has it already: keep one of the two

    1 error in the configuration
    "#);
    assert_snapshot!(refusal("[log\n"), @"
    error: not valid TOML: invalid table header, expected `.`, `]`
     --> config/proxy.toml:1:5
      |
    1 | [log
      |     ^ end the header with `]`

    1 error in the configuration
    ");
}

#[test]
fn a_long_or_wicked_line_is_drawn_in_bounds() {
    let line = format!("[log]\nlevel = \"{}\u{1b}[2J{}\"", "é".repeat(300), "x".repeat(300));
    assert_snapshot!(refusal(&line), @r#"
    error: not valid TOML: invalid basic string
     --> config/proxy.toml:2:310
      |
    2 | éééééééééééééééééééé�[2Jxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
      |                     ^

    1 error in the configuration
    "#);
}

#[test]
fn columns_count_characters_and_lines_may_end_in_cr_lf() {
    let report = read(&format!("[log]\r\n\"é\" = 1\r\nlevel = 7\r\n{REQUIRED}")).expect_err("two errors");
    let places: Vec<_> = report.findings().iter().map(|finding| finding.place.to_string()).collect();
    assert_eq!(places, ["config/proxy.toml:2:1", "config/proxy.toml:3:9"]);
    assert!(!report.to_string().contains('\r'), "{report:?}");
}

#[test]
fn findings_are_objects_for_machines() {
    let report = read(&format!("{REQUIRED}\n[log]\nlevel = \"inf\"")).expect_err("a wrong level");
    let object = serde_json::to_value(report.findings()).expect("plain data");
    assert_snapshot!(format!("{object:#}"), @r#"
    [
      {
        "column": 9,
        "file": "config/proxy.toml",
        "help": "did you mean \"info\"?",
        "key": "log.level",
        "line": 10,
        "message": "`log.level` must be a level such as \"info\", or levels such as \"warn,pulsegate::relay=debug\"",
        "text": "\"inf\""
      }
    ]
    "#);
    assert!(matches!(&report.findings()[0].place, Location::Line { line: 10, column: 9, .. }));
    assert_eq!(Report::EXIT_CODE, 78);
}

#[test]
fn durations_have_a_unit_and_an_end() {
    let of = |value: &str| messages(&format!("[heartbeat]\ninterval = {value}")).join("; ");
    assert_snapshot!(of("25"), @r#"`heartbeat.interval` must be a duration such as "25s" (write "25s")"#);
    assert_snapshot!(of("\"25\""), @r#"`heartbeat.interval` must be a duration such as "25s" (write "25s")"#);
    assert_snapshot!(of("\"soon\""), @r#"`heartbeat.interval` must be a duration such as "25s" (write a number and its unit: ms, s, m, h or d)"#);
    assert_snapshot!(of("\"25 parsecs\""), @r#"`heartbeat.interval` must be a duration such as "25s" (units are ms, s, m, h and d, in small letters)"#);
    assert_snapshot!(of("2.5"), @r#"`heartbeat.interval` must be a duration such as "25s" (write "2.5s")"#);
    assert_snapshot!(of("\"0s\""), @r#"`heartbeat.interval` must be longer than zero (the shortest is "1ms")"#);
    assert_snapshot!(of("\"1us\""), @r#"`heartbeat.interval` must be at least "1ms""#);
    assert_snapshot!(of("\"400days\""), @"`heartbeat.interval` must be at most a year");
    assert_snapshot!(of("2026-01-01"), @r#"`heartbeat.interval` must be a duration such as "25s" (units are ms, s, m, h and d, in small letters)"#);
    assert_snapshot!(of("[]"), @r#"`heartbeat.interval` must be a duration such as "25s" (write a number and its unit: ms, s, m, h or d)"#);
    assert_snapshot!(messages("[upstream.x]\n[heartbeat]\ninterval = \"off\"").join("; "), @r#"unknown key `x` in [upstream] (known here: connect_timeout, give_up, interval, probe, proxy_protocol, response_timeout, source_addresses, timeout, tls, url); `heartbeat.interval` must be a duration such as "25s" (write a number and its unit: ms, s, m, h or d)"#);
}

#[test]
fn numbers_keep_to_their_range() {
    let of = |value: &str| messages(&format!("[heartbeat]\n{value}")).join("; ");
    assert_snapshot!(of("max_missed = 0"), @r#"`heartbeat.max_missed` must be a whole number from 1 to 1000 (write 1 to end a session at its first miss, or mode = "off" for no heartbeat)"#);
    assert_snapshot!(of("max_missed = 1.5"), @"`heartbeat.max_missed` must be a whole number from 1 to 1000 (write a whole number without quotes, such as 1000)");
    for jitter in ["-0.1", "1.01", "nan", "inf", "2", "\"0.2\""] {
        let said = of(&format!("jitter = {jitter}"));
        assert!(said.starts_with("`heartbeat.jitter` must be a number from 0 to 1 (write "), "{jitter}: {said}");
    }
    for jitter in ["0", "1", "0.0", "1.0"] {
        settings(&format!("[heartbeat]\njitter = {jitter}"));
    }
    assert_snapshot!(of("adaptive = \"True\""), @"`heartbeat.adaptive` must be true or false (write true)");
    assert_snapshot!(messages("[listen]\nworkers = 0").join("; "), @r#"`listen.workers` must be "auto" or a whole number from 1 to 1024 (write "auto" for one worker for each CPU)"#);
    assert_snapshot!(messages("[limits]\nheaders = 100000").join("; "), @"`limits.headers` must be a whole number from 1 to 4096 (the largest is 4096)");
}

#[test]
fn sizes_have_known_units() {
    let frame = |value: &str| settings(&format!("[limits]\nframe = {value}")).routes[0].limits.frame;
    assert_eq!(frame("\"64KiB\""), Some(65_536));
    assert_eq!(frame("\"64 kib\""), Some(65_536));
    assert_eq!(frame("\"1MB\""), Some(1_000_000));
    assert_eq!(frame("65536"), Some(65_536));
    assert_eq!(frame("\"65536\""), Some(65_536));
    assert_eq!(frame("\"off\""), None);
    let of = |value: &str| messages(&format!("[limits]\nframe = {value}")).join("; ");
    assert_snapshot!(of("0"), @r#"`limits.frame` must be more than zero bytes, or "off""#);
    assert_snapshot!(of("-1"), @r#"`limits.frame` must be a size such as "64KiB", or "off" (write a whole number of bytes, or one with a unit: B, KiB, MiB, GiB, kB, MB or GB)"#);
    assert_snapshot!(of("\"64 parsecs\""), @r#"`limits.frame` must be a size such as "64KiB", or "off" (units are B, KiB, MiB, GiB, kB, MB and GB)"#);
    assert_snapshot!(of("\"99999999999GiB\""), @r#"`limits.frame` must be a size that 64 bits can hold, or "off""#);
    let head = |value: &str| messages(&format!("[limits]\nheader_bytes = {value}")).join("; ");
    assert_snapshot!(head("8191"), @r#"`limits.header_bytes` must be a size from "8KiB" to "1MiB""#);
    assert_snapshot!(head("\"off\""), @r#"`limits.header_bytes` must be a size such as "64KiB" (write a whole number of bytes, or one with a unit: B, KiB, MiB, GiB, kB, MB or GB)"#);
}

#[test]
fn only_codes_that_may_stand_on_a_wire_are_taken() {
    let with = |code: u16| format!("[heartbeat]\non_miss.client = {{ code = {code} }}");
    for code in [1000, 1001, 1003, 1007, 1014, 3000, 4408, 4999] {
        let route = &settings(&with(code)).routes[0];
        assert_eq!(route.heartbeat.policy().on_miss.client, CloseSpec::new(code, "heartbeat timeout"));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
        assert_eq!(messages(&with(code)).len(), 1, "{code}");
    }
    let long = format!("[heartbeat]\non_miss.client = {{ reason = \"{}\" }}", "é".repeat(62));
    assert_snapshot!(messages(&long).join("; "), @"`heartbeat.on_miss.client.reason` must be at most 123 bytes: a Close frame holds no more (this is 124 bytes)");
}

#[test]
fn the_app_may_be_cut_off_without_a_close() {
    let end = |text: &str| settings(text).routes[0].heartbeat.policy().on_miss.upstream.clone();
    assert_eq!(end("[heartbeat]\non_miss.upstream = \"disconnect\""), UpstreamEnd::Disconnect);
    let close = UpstreamEnd::Close(CloseSpec::new(4000, "heartbeat timeout"));
    assert_eq!(end("[heartbeat.on_miss]\nupstream = { code = 4000 }"), close);
    let back = "[heartbeat]\non_miss.upstream = \"disconnect\"\n[[route]]\npath = \"/a\"\n\
                [route.heartbeat.on_miss.upstream]\ncode = 4000";
    assert_eq!(end(back), close, "a route can turn it back into a Close");
    assert_snapshot!(messages("[heartbeat]\non_miss.upstream = \"disconect\"").join("; "), @r#"`heartbeat.on_miss.upstream` must be "disconnect" or a table (did you mean "disconnect"?)"#);
    assert_snapshot!(messages("[heartbeat]\non_miss.upstream = 4000").join("; "), @r#"`heartbeat.on_miss.upstream` must be "disconnect" or a table"#);
    assert_snapshot!(messages("[heartbeat]\non_miss = 4000").join("; "), @"`heartbeat.on_miss` must be a table (write [heartbeat.on_miss] and its keys below it, or on_miss = { … })");
}

#[test]
fn an_upstream_is_a_plain_origin_or_a_socket() {
    let of = |url: &str| {
        let text = REQUIRED.replace("http://127.0.0.1:3000", url);
        match read(&text) {
            Ok(settings) => settings.upstream.to_string(),
            Err(report) => match &report.findings()[0] {
                finding if finding.help.is_some() => {
                    format!("{} ({})", finding.message, finding.help.as_deref().unwrap_or(""))
                }
                finding => finding.message.clone(),
            },
        }
    };
    assert_eq!(of("http://app"), "http://app:80");
    assert_eq!(of("http://[::1]:3000/"), "http://[::1]:3000");
    assert_eq!(of("unix:/run/app.sock"), "unix:/run/app.sock");
    assert_eq!(of("unix:app.sock"), "unix:config/app.sock");
    assert_snapshot!(of("https://app:443"), @"https://app:443");
    assert_snapshot!(of("localhost:3000"), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write "http://localhost:3000")"#);
    assert_snapshot!(of("ws://app:3000"), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write "http://app:3000": WebSockets start as HTTP)"#);
    assert_snapshot!(of("http://app:3000/api"), @r#"`upstream.url` must not have a path (write "http://app:3000": every path is passed on unchanged)"#);
    assert_snapshot!(of("http://app:3000#api"), @r#"`upstream.url` must not have a path (write "http://app:3000": every path is passed on unchanged)"#);
    assert_snapshot!(of("http://me:secret@app:3000"), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (leave out the user: it is not sent to the app)"#);
    assert_snapshot!(of("http://app:0"), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (0 is no port that an app listens on)"#);
    assert_snapshot!(of("http://app:99999"), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (99999 is no port: ports go up to 65535)"#);
    assert_snapshot!(of("unix:///run/app.sock"), @r#"`upstream.url` must name a socket such as "unix:/run/app.sock" (write "unix:/run/app.sock")"#);
    assert_snapshot!(of(&format!("unix:/{}", "x".repeat(107))), @"`upstream.url` must be a path of at most 107 bytes: no unix socket has a longer one");
    assert_snapshot!(of(""), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write where the app listens, as in "http://127.0.0.1:3000")"#);
    assert_snapshot!(of("/run/app.sock"), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write "unix:/run/app.sock")"#);
}

#[test]
fn values_must_go_together() {
    assert_snapshot!(
        messages("[limits]\nframe = 10\nmessage = 9\n[[route]]\npath = \"/a\"").join("; "), @"`limits.frame` does not fit: a frame (10 bytes) may not be larger than a message (9 bytes) (lower the one or raise the other)");
    assert_snapshot!(
        messages("[limits]\nmessage = 9\n[[route]]\npath = \"/a\"\nlimits.frame = 10").join("; "), @"`route[0].limits.frame` does not fit: a frame (10 bytes) may not be larger than a message (9 bytes) (lower the one or raise the other)");
    let upstream = |text: &str| {
        let text = format!("{REQUIRED}\n{text}");
        read(&text).expect_err("does not fit").to_string()
    };
    assert_snapshot!(upstream("give_up = \"10s\""), @r#"
    error: `upstream.give_up` does not fit: give_up (10s) must be at least interval + timeout (25s)
     --> config/proxy.toml:9:11
      |
    9 | give_up = "10s"
      |           ^^^^^ set give_up = "25s" or more, or shorten the other two

    1 error in the configuration
    "#);
    assert_snapshot!(upstream("timeout = \"2m\""), @r#"
    error: `upstream.timeout` does not fit: give_up (1m) must be at least interval + timeout (2m 15s)
     --> config/proxy.toml:9:11
      |
    9 | timeout = "2m"
      |           ^^^^ set give_up = "2m15s" or more, or shorten the other two

    1 error in the configuration
    "#);
    // The default that replaces a refused value is not reported.
    assert_snapshot!(upstream("timeout = \"2x\"\ngive_up = \"5s\""), @r#"
    error: `upstream.timeout` must be a duration such as "25s"
     --> config/proxy.toml:9:11
      |
    9 | timeout = "2x"
      |           ^^^^ units are ms, s, m, h and d, in small letters

    1 error in the configuration
    "#);
}

/// The messages about `text` in the section of the app.
fn of_the_app(text: &str) -> String {
    let report = read(&format!("{REQUIRED}\n{text}")).expect_err("does not fit");
    let messages = report.findings().iter().map(|finding| {
        let help = finding.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
        format!("{}{help}", finding.message)
    });
    messages.collect::<Vec<_>>().join("; ")
}

#[test]
fn s63_times_at_which_a_healthy_app_would_be_given_up_are_refused() {
    let of = of_the_app;
    let least = "interval = \"100ms\"\ntimeout = \"100ms\"\ngive_up = \"1s\"";
    read(&format!("{REQUIRED}\n{least}")).expect("the smallest that are accepted");
    assert_snapshot!(of("interval = \"20ms\"\ntimeout = \"20ms\"\ngive_up = \"50ms\""), @r#"`upstream.interval` must be at least "100ms", or "off"; `upstream.timeout` must be at least "100ms"; `upstream.give_up` must be at least "1s""#);
    for (key, less) in [("interval", "99ms"), ("timeout", "99ms"), ("give_up", "999ms")] {
        let text: Vec<_> = least
            .lines()
            .map(|line| if line.starts_with(key) { format!("{key} = \"{less}\"") } else { line.to_owned() })
            .collect();
        let wrong = of(&text.join("\n"));
        assert!(wrong.starts_with(&format!("`upstream.{key}` must be at least ")), "{wrong}");
    }
    assert_snapshot!(of("interval = \"1m\"\ngive_up = \"69s\""), @r#"`upstream.give_up` does not fit: give_up (1m 9s) must be at least interval + timeout (1m 10s) (set give_up = "1m10s" or more, or shorten the other two)"#);
    read(&format!("{REQUIRED}\ninterval = \"off\"\ngive_up = \"1s\"")).expect("nothing is watched");
}

#[test]
fn the_probe_of_the_app_is_auto_a_path_or_off() {
    let probe = |text: &str| settings(&format!("probe = {text}")).upstream.probe.clone();
    assert_eq!(probe("\"auto\""), UpstreamProbe::Auto);
    assert_eq!(probe("\"off\""), UpstreamProbe::Off);
    assert_eq!(probe("\"/healthz?deep=1\""), UpstreamProbe::Path("/healthz?deep=1".into()));
    let wrong = |text: &str| of_the_app(&format!("probe = {text}"));
    assert_snapshot!(wrong("\"healthz\""), @r#"`upstream.probe` must be "auto", a path such as "/healthz", or "off" (write "/healthz")"#);
    for text in ["\"\"", "7", "true", "\"/a b\"", "\"/a#b\"", "\"http://a/b\""] {
        let wrong = wrong(text);
        assert!(wrong.starts_with("`upstream.probe` must be \"auto\", a path"), "{text}: {wrong}");
    }
}

#[test]
fn routes_have_paths_that_can_match() {
    let of = |path: &str| messages(&format!("[[route]]\npath = {path}")).join("; ");
    assert_snapshot!(of("\"live\""), @r#"`route[0].path` must begin with "/" (write "/live")"#);
    assert_snapshot!(of("\"/a?b\""), @"`route[0].path` must be a plain path, without '?' (queries are not compared, and other letters arrive percent-encoded)");
    assert_snapshot!(of("\"/ä\""), @"`route[0].path` must be a plain path, without 'ä' (queries are not compared, and other letters arrive percent-encoded)");
    assert_snapshot!(of("\"/a/../b\""), @r#"`route[0].path` matches no request: paths are compared without ".", ".." and "//" (write the path that is left without them)"#);
    assert_snapshot!(of("7"), @r#"`route[0].path` must be a path such as "/socket.io/" (write it in quotes)"#);
    assert_snapshot!(messages("[[route]]\npath = \"/a\"\n[[route]]\npath = \"/a\"").join("; "), @"`route[1].path` is that of an earlier route (make one route of both)");
    assert_snapshot!(messages("[[route]]").join("; "), @"`route[0].path` is missing: the prefix of the paths that the route is for (set `path` in [[route]])");
    assert_snapshot!(messages("[route]\npath = \"/a\"").join("; "), @"`route` must be a list of tables (write [[route]] in the file)");
    assert_snapshot!(messages("route = [\"/a\"]").join("; "), @"`route[0]` must be a table");
    assert_snapshot!(messages("[[heartbeat]]\ninterval = \"1s\"").join("; "), @"`heartbeat` must be a table (write [heartbeat])");
    assert_snapshot!(messages("[[route]]\npath = \"/a\"\nlimits = { headers = 7 }").join("; "), @"unknown key `headers` in [route.limits] (`headers` belongs in [limits])");
}
