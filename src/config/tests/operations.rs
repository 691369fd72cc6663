//! Compiled under `#[cfg(test)]` only.
//!
//! What those who run the program may ask for, and what is refused of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use insta::assert_snapshot;

use super::{REQUIRED, messages, refusal, settings, token_file};
use crate::config::{Admin, AdminSocket, Directives, Drain, Environment, Level, Overrides, Settings, from_str};

/// Returns the report on these keys of the section.
fn of(section: &str, keys: &str) -> String {
    messages(&format!("[{section}]\n{keys}")).join("\n")
}

fn admin(keys: &str) -> Admin {
    settings(&format!("[admin]\n{keys}")).admin
}

fn level(text: &str) -> Directives {
    settings(&format!("[log]\nlevel = \"{text}\"")).log.level
}

#[test]
fn the_defaults_are_those_of_a_sidecar() {
    let Settings { drain, admin, log, otel, .. } = settings("");
    let second = Duration::from_secs(1);
    assert_eq!(drain, Drain { delay: 5 * second, window: 15 * second, code: 1012, max_connection_age: None });
    let socket = AdminSocket::Unix { path: PathBuf::from("/run/pulsegate/admin.sock"), required: false };
    let health = Some("0.0.0.0:9090".parse().expect("an address"));
    assert_eq!(admin, Admin { health, socket: Some(socket), tls: false, token: None, closed_sessions: 1000 });
    assert_eq!(log.level, Level::Info.into());
    assert_eq!(otel, None);
}

#[test]
fn all_that_is_wrong_is_told_at_its_place() {
    let short = token_file("0123456789abcde");
    let name = short.path().display().to_string();
    let text = format!(
        "[drain]\ndelay = 5\nwindw = \"1s\"\ncode = 1000\n\
         [admin]\nsocket = \"run/admin.sock\"\ntoken_file = \"{name}\"\ntoken = \"secret\"\n\
         [log]\nlevel = \"warn,pulsegate::relay=debgu\"\n\
         [otell]\n"
    );
    assert_snapshot!(refusal(&text).replace(&name, "/token").replace(&"^".repeat(name.len() + 2), "^^^^^^^^"), @r#"
    error: `drain.delay` must be a duration such as "25s"
     --> config/proxy.toml:2:9
      |
    2 | delay = 5
      |         ^ write "5s"

    error: unknown key `windw` in [drain]
     --> config/proxy.toml:3:1
      |
    3 | windw = "1s"
      | ^^^^^ did you mean `window`?

    error: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
     --> config/proxy.toml:4:8
      |
    4 | code = 1000
      |        ^^^^ 1000 means a normal end: clients would not reconnect

    error: `admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off"
     --> config/proxy.toml:6:10
      |
    6 | socket = "run/admin.sock"
      |          ^^^^^^^^^^^^^^^^ each command would resolve a relative path in its own folder

    error: `admin.token_file` cannot be used: /token has 15 characters, fewer than 16
     --> config/proxy.toml:7:14
      |
    7 | token_file = "/token"
      |              ^^^^^^^^ write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints

    error: unknown key `token` in [admin]
     --> config/proxy.toml:8:1
      |
    8 | token = "secret"
      | ^^^^^ known here: closed_sessions, health, socket, tls, token_file

    error: `log.level` must have behind "pulsegate::relay=" one of "off", "error", "warn", "info", "debug" or "trace"
      --> config/proxy.toml:10:9
       |
    10 | level = "warn,pulsegate::relay=debgu"
       |         ^^^^^^^^ did you mean "debug"?

    error: unknown key `otell`
      --> config/proxy.toml:11:2
       |
    11 | [otell]
       |  ^^^^^ did you mean `otel`?

    8 errors in the configuration
    "#);
}

#[test]
fn the_end_takes_no_time_or_some_but_never_says_that_all_is_done() {
    let drain = settings("[drain]\ndelay = \"0s\"\nwindow = \"0s\"\ncode = 4321\nmax_connection_age = \"12h\"").drain;
    let age = Some(Duration::from_secs(12 * 60 * 60));
    assert_eq!(drain, Drain { delay: Duration::ZERO, window: Duration::ZERO, code: 4321, max_connection_age: age });
    for code in [1001, 1012, 1013, 3000, 4999] {
        assert_eq!(settings(&format!("[drain]\ncode = {code}")).drain.code, code);
    }
    let codes = [0, 999, 1000, 1002, 1005, 1006, 1011, 1014, 1015, 2999, 5000, 65536 + 1012, -1012];
    let said: Vec<String> =
        codes.iter().map(|code| format!("{code}: {}", of("drain", &format!("code = {code}")))).collect();
    assert_snapshot!(said.join("\n"), @"
    0: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    999: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    1000: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999 (1000 means a normal end: clients would not reconnect)
    1002: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    1005: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999 (RFC 6455 forbids this one in a Close frame)
    1006: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999 (RFC 6455 forbids this one in a Close frame)
    1011: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    1014: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    1015: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999 (RFC 6455 forbids this one in a Close frame)
    2999: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    5000: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    66548: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    -1012: `drain.code` must be 1001, 1012, 1013, or 3000 to 4999
    ");
    assert_snapshot!(of("drain", "code = \"1012\""), @"`drain.code` must be 1001, 1012, 1013, or 3000 to 4999");
    assert_snapshot!(of("drain", "delay = \"soon\""), @r#"`drain.delay` must be a duration such as "25s" (write a number and its unit: ms, s, m, h or d)"#);
    assert_snapshot!(of("drain", "window = 15"), @r#"`drain.window` must be a duration such as "25s" (write "15s")"#);
    assert_snapshot!(of("drain", "window = \"10us\""), @r#"`drain.window` must be at least "1ms""#);
    assert_snapshot!(of("drain", "max_connection_age = \"0s\""), @r#"`drain.max_connection_age` must be longer than zero, or "off" (the shortest is "1ms")"#);
    assert_snapshot!(of("drain", "max_connection_age = false"), @r#"`drain.max_connection_age` must be a duration such as "25s", or "off" (write "off")"#);
    assert_eq!(drain.longest(Duration::from_secs(2)), Duration::from_secs(2));
    assert_eq!(Drain::default().longest(Duration::from_secs(2)), Duration::from_secs(22));
}

#[test]
fn an_admin_socket_is_a_path_or_an_address() {
    let path = |path: &str, required| Some(AdminSocket::Unix { path: PathBuf::from(path), required });
    assert_eq!(admin("socket = \"/tmp/a.sock\"").socket, path("/tmp/a.sock", true));
    assert_eq!(admin("socket = \"/run/pulsegate/admin.sock\"").socket, path("/run/pulsegate/admin.sock", false));
    assert_eq!(admin("socket = \"[::1]:4040\"").socket.map(|socket| socket.to_string()).as_deref(), Some("[::1]:4040"));
    assert_eq!((admin("socket = \"off\"").socket, admin("health = \"off\"").health), (None, None));
    assert_eq!(admin("closed_sessions = 0").closed_sessions, 0);

    assert_snapshot!(of("admin", "socket = \"admin.sock\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (each command would resolve a relative path in its own folder)"#);
    assert_snapshot!(of("admin", "socket = \"./admin\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (each command would resolve a relative path in its own folder)"#);
    assert_snapshot!(of("admin", "socket = \"unix:/run/a.sock\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "/run/a.sock")"#);
    assert_snapshot!(of("admin", "socket = \":4040\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "127.0.0.1:4040")"#);
    assert_snapshot!(of("admin", "socket = \"localhost:4040\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "127.0.0.1:4040")"#);
    assert_snapshot!(of("admin", "socket = 4040"), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "127.0.0.1:4040")"#);
    assert_snapshot!(of("admin", "socket = \"\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off""#);
    assert_snapshot!(of("admin", "socket = \"of\""), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write an absolute path, or "127.0.0.1:4040")"#);
    assert_snapshot!(of("admin", "health = \"9090\""), @r#"`admin.health` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443", or "off" (write "0.0.0.0:9090")"#);
    assert_snapshot!(of("admin", "closed_sessions = 100001"), @"`admin.closed_sessions` must be a whole number from 0 to 100000 (the largest is 100000)");
    assert_snapshot!(of("admin", "closed_sessions = \"off\""), @"`admin.closed_sessions` must be a whole number from 0 to 100000 (write a whole number without quotes, such as 100000)");
    let long = format!("socket = \"/{}\"", "a".repeat(107));
    assert_snapshot!(of("admin", &long), @r#"`admin.socket` must be a path of at most 107 bytes: no unix socket has a longer one, or "off""#);
    assert!(admin(&long.replace("/a", "/")).socket.is_some(), "107 bytes are a path");
    assert_snapshot!(of("admin", "tls = true"), @r#"`admin.tls` is for TCP: a unix socket needs no TLS (leave it out, or write socket = "127.0.0.1:4040")"#);
    assert_snapshot!(of("admin", "tls = true\nsocket = \"/a\""), @r#"`admin.tls` is for TCP: a unix socket needs no TLS (leave it out, or write socket = "127.0.0.1:4040")"#);
}

#[test]
fn beyond_loopback_it_needs_both_tls_and_a_token() {
    let token = token_file("0123456789abcdef\n");
    let token = format!("token_file = \"{}\"\n", token.path().display());
    for loopback in ["127.0.0.1:4040", "127.1.2.3:4040", "[::1]:4040"] {
        assert!(admin(&format!("socket = \"{loopback}\"")).socket.is_some());
    }
    let everywhere = |keys: &str| of("admin", &format!("{keys}socket = \"0.0.0.0:4040\""));
    assert_snapshot!(everywhere(""), @"`admin.socket` cannot be 0.0.0.0:4040 without tls = true and token_file: other machines can reach it (set tls = true and token_file beside it, or stay on 127.0.0.1)");
    assert_snapshot!(everywhere("tls = true\n"), @"`admin.socket` cannot be 0.0.0.0:4040 without token_file: other machines can reach it (set token_file beside it, or stay on 127.0.0.1)");
    assert_snapshot!(everywhere(&token), @"`admin.socket` cannot be 0.0.0.0:4040 without tls = true: other machines can reach it (set tls = true beside it, or stay on 127.0.0.1)");
    let whole = admin(&format!("tls = true\n{token}socket = \"[::]:4040\""));
    assert!(whole.tls && whole.token.is_some());
    // Whether there is a token is known once its file can be read.
    let twice = of("admin", "tls = true\ntoken_file = \"/nowhere/token\"\nsocket = \"192.0.2.1:4040\"");
    assert_eq!(twice.lines().count(), 1, "{twice}");
}

#[test]
fn a_token_is_read_from_its_file_and_never_shown() {
    let file = token_file("  correct-horse-battery \r\n\n");
    let text = format!("[admin]\ntoken_file = \"{}\"", file.path().display());
    let all = settings(&text);
    let token = all.admin.token.clone().expect("a token");
    assert!(token.matches(b"correct-horse-battery"));
    for wrong in
        ["", "correct-horse-batterY", "correct-horse-batter", " correct-horse-battery", "correct-horse-battery "]
    {
        assert!(!token.matches(wrong.as_bytes()), "{wrong:?}");
    }
    assert_eq!(token.file(), file.path());
    assert!(!format!("{all:?}").contains("horse"), "{all:?}");
    assert_eq!(settings(&text), all, "the same file, the same settings");
    std::fs::write(file.path(), "another-horse-battery").expect("write it");
    assert_ne!(settings(&text), all, "a token that has changed is a change");
}

#[test]
fn sixteen_characters_are_enough() {
    let file = token_file("sixteen-letters!");
    let token = admin(&format!("token_file = \"{}\"", file.path().display())).token;
    assert!(token.is_some_and(|token| token.matches(b"sixteen-letters!")));
}

#[test]
fn a_file_that_holds_no_token_is_refused() {
    let refused = |text: &str| {
        let file = token_file(text);
        let name = file.path().display().to_string();
        let said = of("admin", &format!("token_file = \"{name}\""));
        assert!(text.len() < 8 || !said.contains(text.trim()), "{said}");
        said.replace(&name, "FILE")
    };
    assert_snapshot!(refused(""), @"`admin.token_file` cannot be used: FILE has 0 characters, fewer than 16 (write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints)");
    assert_snapshot!(refused("  fifteen-letters "), @"`admin.token_file` cannot be used: FILE has 15 characters, fewer than 16 (write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints)");
    assert_snapshot!(refused("first-line-of-two\nsecond-line-of-two\n"), @"`admin.token_file` cannot be used: FILE has more than one line (write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints)");
    assert_snapshot!(refused("sixteen letters and blanks"), @"`admin.token_file` cannot be used: FILE has other characters than visible ASCII ones (write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints)");
    assert_snapshot!(refused("schlüssel-mit-umlaut"), @"`admin.token_file` cannot be used: FILE has other characters than visible ASCII ones (write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints)");
    assert_snapshot!(refused(&"x".repeat(5000)), @"`admin.token_file` cannot be used: FILE is longer than 4096 bytes (write one line of at least 16 random letters and digits, such as `openssl rand -hex 32` prints)");
    assert_snapshot!(of("admin", "token_file = \"/nowhere/token\""), @"`admin.token_file` cannot be used: /nowhere/token cannot be read: No such file or directory (os error 2) (make it: openssl rand -hex 32 > /nowhere/token)");
    assert_snapshot!(of("admin", "token_file = \"/\""), @"`admin.token_file` cannot be used: / cannot be read: it is no file");
    assert_snapshot!(of("admin", "token_file = 7"), @"`admin.token_file` must be the path of a file (write it in quotes)");
}

#[test]
fn no_two_ports_are_the_same() {
    assert_snapshot!(refusal("[admin]\nhealth = \"127.0.0.1:8443\"\nsocket = \"[::1]:8080\"\n[listen]\nredirect = \"[::]:8080\""), @r#"
    error: `admin.health` does not fit: 127.0.0.1:8443 is taken by the TLS port, 0.0.0.0:8443
     --> config/proxy.toml:2:10
      |
    2 | health = "127.0.0.1:8443"
      |          ^^^^^^^^^^^^^^^^ choose another port

    error: `admin.socket` does not fit: [::1]:8080 is taken by the redirect port, [::]:8080
     --> config/proxy.toml:3:10
      |
    3 | socket = "[::1]:8080"
      |          ^^^^^^^^^^^^ choose another port

    2 errors in the configuration
    "#);
    assert_snapshot!(of("listen", "address = \"127.0.0.1:9090\""), @"`listen.address` does not fit: 127.0.0.1:9090 is taken by `admin.health`, 0.0.0.0:9090 (choose another port, or set health in [admin])");
    assert_snapshot!(of("admin", "socket = \"127.0.0.1:9090\""), @"`admin.socket` does not fit: health (0.0.0.0:9090) and socket (127.0.0.1:9090) need a port each (choose another port for one of them)");
    settings("[admin]\nhealth = \"127.0.0.1:8443\"\n[listen]\naddress = \"127.0.0.2:8443\"");
}

#[test]
fn levels_may_differ_by_target() {
    assert_eq!(level("warn"), Level::Warn.into());
    assert_eq!(level("off"), Directives { default: None, targets: Vec::new() });
    let all = level("warn, pulsegate::heartbeat=debug ,h2 = off");
    let targets = vec![("pulsegate::heartbeat".into(), Some(Level::Debug)), ("h2".into(), None)];
    assert_eq!(all, Directives { default: Some(Level::Warn), targets });
    assert_eq!(all.to_string(), "warn,pulsegate::heartbeat=debug,h2=off");
    assert_eq!(level(&all.to_string()), all);
    assert_eq!(level("h2=trace").default, Some(Level::Info), "a target alone silences nobody else");

    let environment: Environment = [("PULSEGATE__LOG__LEVEL", "error,h2=info")].into_iter().collect();
    let overrides = Overrides { log_level: Some("debug,h2=warn".to_owned()), ..Overrides::default() };
    let from = |overrides: &Overrides| from_str(Path::new("a"), REQUIRED, &environment, overrides);
    let said = |overrides: &Overrides| from(overrides).expect("valid").log.level.to_string();
    assert_eq!(said(&Overrides::default()), "error,h2=info");
    assert_eq!(said(&overrides), "debug,h2=warn");
}

#[test]
fn levels_that_are_none_are_refused() {
    let refused = |text: &str| of("log", &format!("level = \"{text}\""));
    assert_snapshot!(refused(""), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug""#);
    assert_snapshot!(refused("INFO"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug" (did you mean "info"?)"#);
    assert_snapshot!(refused("wran,h2=off"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug" (did you mean "warn"?)"#);
    assert_snapshot!(refused("verbose"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug" ("verbose" is no level; levels are off, error, warn, info, debug and trace)"#);
    assert_snapshot!(refused("pulsegate::relay"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug" (did you mean "pulsegate::relay=debug"?)"#);
    assert_snapshot!(refused("warn,,h2=off"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug" (one side of a comma is empty)"#);
    assert_snapshot!(refused("warn,"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug" (one side of a comma is empty)"#);
    assert_snapshot!(refused("=debug"), @r#"`log.level` has no target before "=debug" (did you mean "debug", for all targets?)"#);
    assert_snapshot!(refused("h2="), @r#"`log.level` must have behind "h2=" one of "off", "error", "warn", "info", "debug" or "trace""#);
    assert_snapshot!(refused("h2=inf"), @r#"`log.level` must have behind "h2=" one of "off", "error", "warn", "info", "debug" or "trace" (did you mean "info"?)"#);
    assert_snapshot!(refused("h2=off=warn"), @r#"`log.level` must have behind "h2=" one of "off", "error", "warn", "info", "debug" or "trace""#);
    assert_snapshot!(refused("info,debug"), @"`log.level` names two levels for all that has no target");
    assert_snapshot!(refused("h2=off,h2=warn"), @r#"`log.level` names "h2" twice"#);
    assert_snapshot!(refused("pulsegate[session]=debug"), @r#"`log.level` has a target that is no module's path: '[' in "pulsegate[session]" (targets are such as "pulsegate::relay" and "h2")"#);
    assert_snapshot!(of("log", "level = 7"), @r#"`log.level` must be a level such as "info", or levels such as "warn,pulsegate::relay=debug""#);
}

#[test]
fn a_collector_is_for_a_program_that_can_speak_to_it() {
    assert_eq!(settings("[otel]\nendpoint = \"off\"").otel, None);
    let of = |url: &str| of("otel", &format!("endpoint = \"{url}\""));
    assert_snapshot!(of("127.0.0.1:4318"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off""#);
    assert_snapshot!(of("https://collector.example:4318"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off" (write "http://collector.example:4318": a collector is on the same machine, and passes on by TLS)"#);
    assert_snapshot!(of("grpc://127.0.0.1:4317"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off""#);
    assert_snapshot!(of("http://user@127.0.0.1"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off""#);
    assert_snapshot!(of("http://"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off""#);
    assert_snapshot!(of("http://127.0.0.1/?a"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off""#);
    assert_snapshot!(of("http://127.0.0.1/#a"), @r#"`otel.endpoint` must be the URL of a collector such as "http://127.0.0.1:4318", or "off""#);
    let text = "[otel]\nendpoint = \"http://127.0.0.1:4318/\"";
    if cfg!(feature = "otel") {
        let otel = settings(text).otel.expect("an endpoint");
        assert_eq!(&*otel.endpoint, "http://127.0.0.1:4318");
    } else {
        assert_eq!(
            messages(text),
            ["`otel.endpoint` is not for this program, which was built without OpenTelemetry \
              (leave it out, or build with `cargo build --release --features otel`)"]
        );
    }
}
