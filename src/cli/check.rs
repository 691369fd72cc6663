//! `pulsegate check`: what is wrong with a configuration, or what it would serve.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use humantime::format_duration;
use serde_json::{Value, json};

use crate::config::{self, Overrides, Report, Route, Settings, Tls};
use crate::heartbeat::{Mode, Policy};

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
/// `certificates` reads the TLS files and says why they cannot be used. Errors are those of `out`.
pub fn check(
    path: &Path,
    overrides: &Overrides,
    format: Format,
    certificates: impl Fn(&Tls) -> Result<(), String>,
    out: &mut impl Write,
) -> io::Result<Verdict> {
    let loaded = config::load_with(path, overrides, certificates);
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

/// How long a client that has gone silent is held at most while its connection is idle; `None` is for ever.
fn detection(policy: &Policy) -> Option<Duration> {
    (policy.mode != Mode::Off).then(|| policy.interval + policy.timeout * policy.max_missed)
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
    write!(out, "  passes on to {}, ", upstream.target)?;
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
        writeln!(out, "  route        {:width$}  {}", route.path, outline(route))?;
    }
    Ok(())
}

fn outline(route: &Route) -> String {
    let policy = route.heartbeat.policy();
    let heartbeat = match detection(policy) {
        None => "no heartbeat".to_owned(),
        Some(bound) => format!(
            "pinged after {} of quiet, a dead client is gone within {} s{}",
            format_duration(policy.interval),
            bound.as_secs_f64(),
            if policy.adaptive { " (more where round trips are long)" } else { "" },
        ),
    };
    let limit = |name, limit: Option<u64>| limit.map(|bytes| format!("{name} up to {bytes} bytes"));
    let limits = [limit("frames", route.limits.frame), limit("messages", route.limits.message)];
    [Some(heartbeat)].into_iter().chain(limits).flatten().collect::<Vec<_>>().join(", ")
}

fn serves(settings: &Settings) -> Value {
    let Settings { listen, tls, upstream, routes, .. } = settings;
    let routes: Vec<Value> = routes
        .iter()
        .map(|route| {
            let bound = detection(route.heartbeat.policy());
            json!({
                "path": route.path,
                "heartbeat": if bound.is_some() { "protocol" } else { "off" },
                "detection_s": bound.map(|bound| bound.as_secs_f64()),
                "frame_bytes": route.limits.frame,
                "message_bytes": route.limits.message,
            })
        })
        .collect();
    json!({
        "listen": listen.address,
        "workers": listen.workers,
        "certificate": tls.certificate.display().to_string(),
        "upstream": upstream.target.to_string(),
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
            let certificates = |_: &Tls| certificates.map_err(str::to_owned);
            let verdict =
                check(&self.0, &Overrides::default(), format, certificates, &mut out).expect("memory takes all");
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
        let verdict = check(none, &Overrides::default(), Format::Human, |_| Ok(()), &mut out);
        assert_eq!(verdict.expect("memory takes all"), Verdict::Invalid);
        assert_snapshot!(String::from_utf8_lossy(&out), @r#"
    error: cannot read src/none.toml: No such file or directory (os error 2)
    --> src/none.toml
     = help: give the path of the configuration file with -c

    1 error in the configuration
    "#);
    }
}
