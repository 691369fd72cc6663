//! `pulsegate check`: what is wrong with a configuration, or what it would serve.

mod heartbeat;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use humantime::format_duration;
use serde_json::{Value, json};

use crate::config::{self, Overrides, Report, Route, Settings, Tls, Upstream};

/// How the findings are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Human,
    /// One JSON object: `valid`, `errors`, and `serves` where there are none.
    Json,
}

/// What has come of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `run` would start with this configuration, as far as one can know without listening.
    Valid,
    /// It would not.
    Invalid,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Valid => Self::SUCCESS,
            Verdict::Invalid => Self::from(Report::EXIT_CODE),
        }
    }
}

/// Loads and validates the whole configuration without opening a listener, and writes to `out` everything that is
/// wrong with it or, where nothing is, what would be served.
///
/// `certificates` reads the TLS files and says why they cannot be used, `app` those for an app behind TLS. Errors are those
/// of `out`.
pub fn check(
    path: &Path,
    overrides: &Overrides,
    format: Format,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    app: impl Fn(&Upstream) -> Result<(), String>,
    out: &mut impl Write,
) -> io::Result<Verdict> {
    let loaded = config::load_with(path, overrides, certificates, app);
    match (&loaded, format) {
        (Ok(settings), Format::Human) => describe(path, settings, out)?,
        (Err(report), Format::Human) => writeln!(out, "{report}")?,
        (Ok(settings), Format::Json) => {
            writeln!(out, "{:#}", json!({ "valid": true, "errors": [], "serves": serves(settings) }))?;
        }
        (Err(report), Format::Json) => {
            writeln!(out, "{:#}", json!({ "valid": false, "errors": report.findings() }))?;
        }
    }
    Ok(if loaded.is_ok() { Verdict::Valid } else { Verdict::Invalid })
}

fn describe(path: &Path, settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let Settings { listen, tls, upstream, routes, .. } = settings;
    let workers = match listen.workers.get() {
        1 => "1 worker".to_owned(),
        many => format!("{many} workers"),
    };
    writeln!(out, "{} is valid.", path.display())?;
    writeln!(out, "  listens on   {} for https and wss, {workers}", listen.address)?;
    writeln!(out, "  presents     {}", tls.certificate.display())?;
    write!(out, "  passes on to {upstream}, ")?;
    match upstream.heartbeat.interval {
        Some(interval) => writeln!(
            out,
            "probed after {} of silence, given up after {}",
            format_duration(interval),
            format_duration(upstream.heartbeat.give_up)
        )?,
        None => writeln!(out, "never probed")?,
    }
    let width = routes.iter().map(|route| route.path.len()).max().unwrap_or(0);
    for route in routes {
        let mut lines = outline(route).into_iter();
        writeln!(out, "  route        {:width$}  {}", route.path, lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(out, "               {:width$}    {line}", "")?;
        }
    }
    Ok(())
}

/// A route in lines: the heartbeat and the limits of its sessions, and the kinds of sessions where there are several.
fn outline(route: &Route) -> Vec<String> {
    let limit = |name, limit: Option<u64>| limit.map(|bytes| format!(", {name} up to {bytes} bytes"));
    let limits = [limit("frames", route.limits.frame), limit("messages", route.limits.message)];
    let mut lines = heartbeat::sentences(&route.heartbeat);
    if let Some(first) = lines.first_mut() {
        first.extend(limits.into_iter().flatten());
    }
    lines
}

fn serves(settings: &Settings) -> Value {
    let Settings { listen, tls, upstream, routes, .. } = settings;
    let routes = routes.iter().map(|route| {
        let mut facts = heartbeat::facts(&route.heartbeat);
        facts.insert("path".to_owned(), json!(route.path));
        facts.insert("frame_bytes".to_owned(), json!(route.limits.frame));
        facts.insert("message_bytes".to_owned(), json!(route.limits.message));
        Value::Object(facts)
    });
    let routes: Vec<Value> = routes.collect();
    json!({
        "listen": listen.address,
        "workers": listen.workers,
        "certificate": tls.certificate.display().to_string(),
        "upstream": upstream.to_string(),
        "routes": routes,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use insta::assert_snapshot;

    use super::*;

    /// A configuration file that is gone when the test is.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("pulsegate-{}-{name}.toml", std::process::id()));
            fs::write(&path, text).expect("the temporary folder takes files");
            Self(path)
        }

        /// The verdict, and what was written with the file's path left out.
        fn check(&self, format: Format, certificates: Result<(), &str>) -> (Verdict, String) {
            let mut out = Vec::new();
            let app = |app: &Upstream| certificates.map_err(|error| format!("{app}: {error}"));
            let certificates = |_: &Tls| certificates.map_err(str::to_owned);
            let checked = check(&self.0, &Overrides::default(), format, certificates, app, &mut out);
            let verdict = checked.expect("memory takes all");
            let out = String::from_utf8(out).expect("text");
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
    fn a_valid_configuration_is_told_in_a_few_lines() {
        let (verdict, out) = File::new("valid", VALID).check(Format::Human, Ok(()));
        assert_eq!(verdict, Verdict::Valid);
        assert_snapshot!(out, @r#"
    FILE is valid.
      listens on   0.0.0.0:8443 for https and wss, 2 workers
      presents     /tls.crt
      passes on to unix:/run/app.sock, probed after 15s of silence, given up after 1m
      route        /live/  pinged after 1s 500ms of quiet, a dead client is gone within 4.5 s (more where round trips are long), messages up to 65536 bytes
      route        /raw/   no heartbeat
      route        /       pinged after 25s of quiet, a dead client is gone within 45 s
    "#);
    }

    #[test]
    fn a_valid_configuration_is_an_object_for_machines() {
        let (verdict, out) = File::new("valid-json", VALID).check(Format::Json, Ok(()));
        assert_eq!(verdict, Verdict::Valid);
        let object: Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(object["valid"], true);
        assert_eq!(object["errors"], json!([]));
        let bounds = object["serves"]["routes"].as_array().expect("routes").iter();
        let bounds: Vec<_> = bounds.map(|route| (route["path"].clone(), route["detection_s"].clone())).collect();
        assert_eq!(bounds, [(json!("/live/"), json!(4.5)), (json!("/raw/"), json!(null)), (json!("/"), json!(45.0))]);
    }

    /// What is said of the route `/` where the file says `heartbeat` of all.
    fn told(name: &str, heartbeat: &str) -> (String, Value) {
        let file =
            File::new(name, &format!("[heartbeat]\n{heartbeat}\n{}", &VALID[..VALID.find("[[").expect("a route")]));
        let (verdict, human) = file.check(Format::Human, Ok(()));
        assert_eq!(verdict, Verdict::Valid, "{heartbeat}\n{human}");
        let (_, machine) = file.check(Format::Json, Ok(()));
        let machine: Value = serde_json::from_str(&machine).expect("JSON");
        let start = human.find("  route        /  ").expect("a route");
        (
            human[start..].trim_start_matches("  route        /  ").trim_end().to_owned(),
            machine["serves"]["routes"][0].clone(),
        )
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one line for each case, and two of what is said of it")]
    fn each_heartbeat_is_explained_with_its_bound() {
        let mut all = Vec::new();
        for (at, heartbeat) in [
            "mode = \"off\"",
            "max_missed = 2",
            "profile = \"express-text\"",
            "profile = \"express-text\"\nmode = \"answer\"",
            "profile = \"graphql-transport-ws\"\nmode = \"answer\"\nwindow = \"2m\"",
            "profile = { send = \"a\", expect = \"b\" }\nadaptive = true",
            "profile = { send = \"a\", expect = \"b\", start_after = \"hello\" }\nmode = \"answer\"\nwindow = \"10s\"",
            "profile = { expect = \"b\" }\nmode = \"passive\"\nliveness = \"pong_only\"",
            "profile = { send = \"a\", expect = \"b\" }\nmode = \"passive\"",
            "profile = { send = \"a\", expect = \"b\" }\nmode = \"passive\"\nmax_missed = 2",
            "profile = { send = \"alive?\", expect = \"alive\" }\nmode = \"passive\"",
            "profile = \"engine.io\"",
            "profile = \"engine.io\"\nliveness = \"pong_only\"\ntimeout = \"5s\"",
            "profile = \"graphql-ws\"",
            "profile = \"signalr\"",
            "profile = \"signalr\"\nwindow = \"1m\"",
            "profile = \"stomp\"",
            "profile = \"stomp\"\nwindow = \"1m\"",
            "profile = \"mqtt\"\ninterval = \"10s\"",
            "profile = \"phoenix\"",
            "profile = \"actioncable\"",
            "profile = \"pusher\"",
            "profile = \"pusher\"\nwindow = \"1m\"",
        ]
        .into_iter()
        .enumerate()
        {
            let (human, machine) = told(&format!("told-{at}"), heartbeat);
            let facts = ["heartbeat", "profile", "detection_s", "compression"].map(|key| machine[key].to_string());
            all.push(format!("{}\n    {human}\n    {}", heartbeat.replace('\n', ", "), facts.join(" ")));
        }
        assert_snapshot!(all.join("\n"), @r#"
    mode = "off"
        no heartbeat
        "off" null null true
    max_missed = 2
        pinged after 25s of quiet, a dead client is gone within 65 s
        "protocol" null 65.0 true
    profile = "express-text"
        asked (express-text) after 25s of quiet, a dead client is gone within 45 s, no compression
        "app" "express-text" 45.0 false
    profile = "express-text", mode = "answer"
        answered (express-text), a dead client is gone within 90 s, no compression
        "answer" "express-text" 90.0 false
    profile = "graphql-transport-ws", mode = "answer", window = "2m"
        answered (graphql-transport-ws), a dead client is gone within 120 s, no compression
        "answer" "graphql-transport-ws" 120.0 false
    profile = { send = "a", expect = "b" }, adaptive = true
        asked (custom) after 25s of quiet, a dead client is gone within 45 s (more where round trips are long), no compression
        "app" "custom" 45.0 false
    profile = { send = "a", expect = "b", start_after = "hello" }, mode = "answer", window = "10s"
        answered (custom) once `start_after` has passed and pinged until then, a dead client is gone within 45 s, no compression
        "answer" "custom" 45.0 false
    profile = { expect = "b" }, mode = "passive", liveness = "pong_only"
        watched (custom), a dead client is gone within 90 s, a compressed message whose content cannot be read counts as a heartbeat
        "passive" "custom" 90.0 true
    profile = { send = "a", expect = "b" }, mode = "passive"
        watched (custom), a dead client is gone within the app's own interval + 20 s
        "passive" "custom" null true
    profile = { send = "a", expect = "b" }, mode = "passive", max_missed = 2
        watched (custom), a dead client is gone within 2 × (the app's own interval + 20 s)
        "passive" "custom" null true
    profile = { send = "alive?", expect = "alive" }, mode = "passive"
        watched (custom), a dead client is gone within the app's own interval + 20 s, pinged instead where the app compresses its messages with context takeover
        "passive" "custom" null true
    profile = "engine.io"
        watched (engine.io), a dead client is gone within the app's own interval (25 s by Socket.IO's default) + 20 s
        "passive" "engine.io" null true
    profile = "engine.io", liveness = "pong_only", timeout = "5s"
        watched (engine.io), a dead client is gone within the app's own interval (25 s by Socket.IO's default) + 5 s, a compressed message whose content cannot be read counts as a heartbeat
        "passive" "engine.io" null true
    profile = "graphql-ws"
        watched (graphql-ws) and pinged after 25s of quiet, a dead client is gone within 45 s
        "passive" "graphql-ws" 45.0 true
    profile = "signalr"
        watched (signalr), a dead client is gone within 30 s of the app's next word
        "passive" "signalr" null true
    profile = "signalr", window = "1m"
        watched (signalr), a dead client is gone within 60 s of the app's next word
        "passive" "signalr" null true
    profile = "stomp"
        watched (stomp), pinged after 25s of quiet until the handshake has agreed on a heartbeat, a dead client is gone within 3 × the interval that it has agreed on, 45 s while it is pinged
        "passive" "stomp" null true
    profile = "stomp", window = "1m"
        watched (stomp), pinged after 25s of quiet until the handshake has agreed on a heartbeat, a dead client is gone within 60 s
        "passive" "stomp" 60.0 true
    profile = "mqtt", interval = "10s"
        watched (mqtt), pinged after 10s of quiet until the handshake has agreed on a heartbeat, a dead client is gone within 1.5 × the keep-alive that it has agreed on, 30 s while it is pinged
        "passive" "mqtt" null true
    profile = "phoenix"
        watched (phoenix), a dead client is gone within 120 s
        "passive" "phoenix" 120.0 true
    profile = "actioncable"
        watched (actioncable) and pinged after 25s of quiet, a dead client is gone within 45 s
        "passive" "actioncable" 45.0 true
    profile = "pusher"
        watched (pusher), a dead client is gone within 1.5 × the app's activity timeout (180 s where it names none) of the last word of either side
        "passive" "pusher" null true
    profile = "pusher", window = "1m"
        watched (pusher), a dead client is gone within 60 s of the last word of either side
        "passive" "pusher" 60.0 true
    "#);
    }

    #[test]
    fn auto_lists_what_each_session_may_be() {
        let (human, machine) = told("auto", "profile = \"auto\"");
        assert_snapshot!(human, @"
    the heartbeat that the upgrade shows:
                        subprotocol graphql-transport-ws: asked (graphql-transport-ws) after 25s of quiet, a dead client is gone within 45 s, no compression
                        subprotocol graphql-ws: watched (graphql-ws) and pinged after 25s of quiet, a dead client is gone within 45 s
                        subprotocol of STOMP: watched (stomp), pinged after 25s of quiet until the handshake has agreed on a heartbeat, a dead client is gone within 3 × the interval that it has agreed on, 45 s while it is pinged
                        subprotocol of MQTT: watched (mqtt), pinged after 25s of quiet until the handshake has agreed on a heartbeat, a dead client is gone within 1.5 × the keep-alive that it has agreed on, 45 s while it is pinged
                        subprotocol phoenix: watched (phoenix), a dead client is gone within 120 s
                        subprotocol actioncable-v1-json: watched (actioncable) and pinged after 25s of quiet, a dead client is gone within 45 s
                        query EIO=4&transport=websocket: watched (engine.io), a dead client is gone within the app's own interval (25 s by Socket.IO's default) + 20 s
                        path …/websocket, query vsn: watched (phoenix), a dead client is gone within 120 s
                        path …/app/…, query protocol: watched (pusher), a dead client is gone within 1.5 × the app's activity timeout (180 s where it names none) of the last word of either side
                        anything else: pinged after 25s of quiet, a dead client is gone within 45 s
    ");
        assert_eq!(machine["heartbeat"], "auto");
        assert_eq!(machine["detection_s"], Value::Null, "it depends on the session");
        let sessions = machine["sessions"].as_array().expect("a list").iter();
        let sessions: Vec<String> = sessions
            .map(|session| {
                ["shown_by", "heartbeat", "profile", "detection_s"].map(|key| session[key].to_string()).join(" ")
            })
            .collect();
        assert_snapshot!(sessions.join("\n"), @r#"
    "subprotocol graphql-transport-ws" "app" "graphql-transport-ws" 45.0
    "subprotocol graphql-ws" "passive" "graphql-ws" 45.0
    "subprotocol of STOMP" "passive" "stomp" null
    "subprotocol of MQTT" "passive" "mqtt" null
    "subprotocol phoenix" "passive" "phoenix" 120.0
    "subprotocol actioncable-v1-json" "passive" "actioncable" 45.0
    "query EIO=4&transport=websocket" "passive" "engine.io" null
    "path …/websocket, query vsn" "passive" "phoenix" 120.0
    "path …/app/…, query protocol" "passive" "pusher" null
    null "protocol" null 45.0
    "#);
    }

    #[test]
    fn certificates_are_read_even_where_something_else_is_wrong() {
        let file = File::new("certificates", &VALID.replace("workers = 2", "workers = 0"));
        let (verdict, out) = file.check(Format::Human, Err("/tls.key: no such file"));
        assert_eq!(verdict, Verdict::Invalid);
        assert_snapshot!(out, @r#"
    error: `listen.workers` must be "auto" or a whole number from 1 to 1024
     --> FILE:3:11
      |
    3 | workers = 0
      |           ^

    error: `tls.certificate` and its key cannot be used: /tls.key: no such file
     --> FILE:5:15
      |
    5 | certificate = "/tls.crt"
      |               ^^^^^^^^^^

    2 errors in the configuration
    "#);
    }

    #[test]
    fn the_files_for_apps_behind_tls_are_read() {
        let apps = "[upstream]\nurl = \"https://one\"\n[[route]]\npath = \"/b/\"\nupstream = \"https://two\"\n\
            [[route]]\npath = \"/c/\"\nupstream = { tls = { ca = \"/three.pem\" } }\n";
        let file = File::new("apps", &format!("[tls]\ncertificate = \"/tls.crt\"\nprivate_key = \"/tls.key\"\n{apps}"));
        let (verdict, out) = file.check(Format::Human, Err("no such file"));
        assert_eq!(verdict, Verdict::Invalid);
        let found: Vec<&str> = out.lines().filter(|line| line.starts_with("error")).skip(1).collect();
        assert_eq!(
            found,
            [
                "error: `upstream.url` cannot be used: https://one:443: no such file",
                "error: `route[0].upstream` cannot be used: https://two:443: no such file",
                "error: `route[1].upstream.tls` cannot be used: https://one:443: no such file",
            ],
            "{out}"
        );
    }

    #[test]
    fn errors_are_objects_for_machines() {
        let file = File::new("errors-json", &VALID.replace("workers = 2", "wokers = 2\naddress = 1"));
        let (verdict, out) = file.check(Format::Json, Ok(()));
        assert_eq!(verdict, Verdict::Invalid);
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
        let none = Path::new("src/none.toml");
        let verdict = check(none, &Overrides::default(), Format::Human, |_| Ok(()), |_| Ok(()), &mut out);
        assert_eq!(verdict.expect("memory takes all"), Verdict::Invalid);
        assert_snapshot!(String::from_utf8_lossy(&out), @r#"
    error: cannot read src/none.toml: No such file or directory (os error 2)
    --> src/none.toml
     = help: give the path of the configuration file with -c

    1 error in the configuration
    "#);
    }
}
