//! `pulsegate dev`: runs the proxy on a developer's machine, without any setup.

mod authority;
mod echo;

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use humantime::format_duration;

use self::authority::{Loopback, Published};
use self::echo::{Echo, Port};
use super::app::{AppArgs, AppLaunch};
use crate::child::free_port;
use crate::config::{self, AdminSocket, Environment, Overrides, Settings, UpstreamSettings, UpstreamTarget};
use crate::drain::{OnHangup, Shutdown};
use crate::server::{Server, StartError};
use crate::telemetry::{self, HeartbeatLogging};
use crate::tls::Identity;
use crate::upstream::Unusable;

/// The default address of the proxy.
const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// The default address of the inspect page.
const INSPECT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4040);

/// The arguments of `pulsegate dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command creates for this run only: a CA whose key stays in memory, a certificate for localhost, and an app without \
heartbeat code. The heartbeat is faster than in production, so that its effects are visible at once.

Exit codes: 0 ended as asked, 1 failed, 2 wrong usage; with a command the app's own, also after a second signal, \
128 + n after signal n, 126 or 127 if it cannot be started")]
pub struct DevArgs {
    /// Proxy this app instead of the built-in one: `http://host:port` or `unix:/path`.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Address to listen on, loopback or all addresses [default: 127.0.0.1:8443, or another port if that is taken].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = listen)]
    listen: Option<SocketAddr>,
    /// Address of the inspect page, on loopback [default: 127.0.0.1:4040, or another port if that is taken].
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = loopback)]
    inspect: Option<SocketAddr>,
    /// Silence of a client before it is pinged.
    #[arg(long, default_value = "5s", value_parser = super::duration::parse)]
    interval: Duration,
    /// Time limit for a pinged client to show a sign of life.
    #[arg(long, default_value = "5s", value_parser = super::duration::parse)]
    timeout: Duration,
    /// Write the CA's certificate here and leave it [default: a temporary file, removed at the end].
    #[arg(long, value_name = "FILE")]
    ca_out: Option<PathBuf>,
    #[command(flatten)]
    app: AppArgs,
}

impl DevArgs {
    /// Returns the arguments for an app to start.
    pub(super) fn app(&self) -> &AppArgs {
        &self.app
    }
}

/// Runs the proxy until a signal ends it.
///
/// # Errors
///
/// The flags are invalid, a port cannot be opened, or the proxy fails.
pub fn run(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let command = args.app.command();
    let port = match (&args.to, &command) {
        (None, None) => Some(Port::open().context("cannot start the echo app")?),
        _ => None,
    };
    let own = match (&port, &args.to) {
        (Some(port), _) => Some(port.address().port()),
        (None, None) => Some(free_port(&[]).context("cannot find a free port for the app")?),
        (None, Some(_)) => None,
    };
    let own = own.map(|port| format!("http://127.0.0.1:{port}"));
    let app = args.to.clone().or(own).unwrap_or_default();
    let settings = settings(args, &app)?;
    let _logging = telemetry::init(&settings.log, HeartbeatLogging::Shown).context("cannot log")?;

    let Loopback { authority, chain, key } = Loopback::new(SystemTime::now()).context("cannot make a certificate")?;
    let identity = Identity::from_der(chain, key).context("cannot use the certificate that was just made")?;
    let app = Arc::clone(&settings.upstream);
    let server = bind(settings, identity, args)?;
    let server = {
        let app = Arc::clone(&app);
        server.for_development(move |unusable| drop(print(&unreachable(&app, unusable))))
    };
    let authority = publish(args.ca_out.as_deref(), server.address().port(), &authority)?;

    let inspect = match server.admin_address() {
        Some(AdminSocket::Tcp(address)) => *address,
        other => anyhow::bail!("the inspect page has no port, but {other:?}"),
    };
    // The built-in app runs as long as `_echo` exists.
    let echo = port.map(|port| Echo::start(port, args.interval, args.timeout, inspect));
    let _echo = echo.transpose().context("cannot start the echo app")?;
    let guide = Guide { args, app, address: server.address(), inspect, authority: authority.path() };
    // The text names Ctrl-C, which removes the certificate only once signals are handled, so it is printed after that.
    let serve = |shutdown| server.run_announced(shutdown, || print(&guide));
    let Some(command) = command else {
        return Ok(serve(Shutdown::on_signals()).map(|()| ExitCode::SUCCESS)?);
    };
    let (hangup, stop_within) = (OnHangup::Exit, args.app.stop_within());
    AppLaunch { command, address: &guide.app.target, flag: "--to", hangup, stop_within }.serve(serve)
}

/// Returns the settings of a configuration file with these flags and nothing else; the environment is not read.
fn settings(args: &DevArgs, app: &str) -> anyhow::Result<Settings> {
    let address = args.listen.unwrap_or(ADDRESS);
    let (interval, timeout) = (args.interval.as_millis(), args.timeout.as_millis());
    let mut file = toml_edit::DocumentMut::new();
    file["listen"]["address"] = toml_edit::value(address.to_string());
    file["listen"]["workers"] = toml_edit::value(1);
    // The certificate is passed in memory; these files are never opened.
    file["tls"]["certificate"] = toml_edit::value("(made in memory)");
    file["tls"]["private_key"] = toml_edit::value("(made in memory)");
    file["upstream"]["url"] = toml_edit::value(app);
    // Readiness is not served here, and without probes the app's log shows the developer's own requests alone.
    file["upstream"]["probe"] = toml_edit::value("off");
    file["heartbeat"]["interval"] = toml_edit::value(format!("{interval}ms"));
    file["heartbeat"]["timeout"] = toml_edit::value(format!("{timeout}ms"));
    file["drain"]["delay"] = toml_edit::value("0s");
    file["drain"]["window"] = toml_edit::value("0s");
    file["admin"]["health"] = toml_edit::value("off");
    file["admin"]["socket"] = toml_edit::value(args.inspect.unwrap_or(INSPECT).to_string());
    file["log"]["format"] = toml_edit::value("human");
    let path = Path::new("pulsegate dev");
    config::from_str(path, &file.to_string(), &Environment::default(), &Overrides::default())
        .map_err(|report| anyhow!("{}", in_flags(&report)))
}

/// Returns the faults of the settings with flags in place of the keys, since there is no file.
fn in_flags(report: &config::Report) -> String {
    let flags =
        [("`upstream.url`", "--to"), ("`heartbeat.interval`", "--interval"), ("`heartbeat.timeout`", "--timeout")];
    let texts = report.findings().iter().map(|finding| {
        let help = finding.help.as_deref().map(|help| format!(" ({help})")).unwrap_or_default();
        flags.iter().fold(format!("{}{help}", finding.message), |texts, (key, flag)| texts.replace(key, flag))
    });
    texts.collect::<Vec<_>>().join("; ")
}

/// Opens the ports; a default port in use is replaced by one that the system chooses.
fn bind(mut settings: Settings, identity: Identity, args: &DevArgs) -> Result<Server, StartError> {
    // Each address is replaced once at most: a port that the system chooses is free.
    for _ in 0..2 {
        match Server::bind(settings.clone(), identity.clone()) {
            Err(StartError::Listen { source, .. })
                if args.listen.is_none() && source.kind() == io::ErrorKind::AddrInUse =>
            {
                settings.listen.address.set_port(0);
            }
            Err(error) if args.inspect.is_none() && error.is_admin_port_taken() => {
                settings.admin.socket = Some(AdminSocket::Tcp(SocketAddr::new(INSPECT.ip(), 0)));
            }
            other => return other,
        }
    }
    Server::bind(settings, identity)
}

fn publish(wanted: Option<&Path>, port: u16, pem: &str) -> anyhow::Result<Published> {
    match wanted {
        Some(path) => Published::to(path, pem).map_err(|error| {
            let remedy = "name a file in a folder that exists, and that you may write to, with --ca-out";
            anyhow!("cannot write {}: {error}; {remedy}", path.display())
        }),
        None => {
            Published::temporarily(port, pem).context("cannot write a temporary file; --ca-out names another place")
        }
    }
}

/// Parses the address of the inspect page, which has to be loopback: the page can close connections, and asks for no
/// token.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "must be an address and a port such as 127.0.0.1:4040".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("the inspect page is for this machine alone: use 127.0.0.1 or [::1]".to_owned())
    }
}

/// Parses the address of the proxy: loopback, for which the certificate is made, or all addresses, which include it.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "must be an address and a port such as 127.0.0.1:8443".to_owned())?;
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        Ok(address)
    } else {
        Err("the certificate is made for loopback: use 127.0.0.1, [::1], 0.0.0.0 or [::]".to_owned())
    }
}

/// The instructions printed at the start.
struct Guide<'a> {
    args: &'a DevArgs,
    app: Arc<UpstreamSettings>,
    address: SocketAddr,
    inspect: SocketAddr,
    authority: &'a Path,
}

impl Display for Guide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let built_in = self.args.to.is_none() && self.args.app.command().is_none();
        let port = self.address.port();
        let (https, path) = (format!("https://localhost:{port}/"), if built_in { echo::PATH } else { "/" });
        let wss = format!("wss://localhost:{port}{path}");
        let ca = self.authority.display();
        let (interval, timeout) = (format_duration(self.args.interval), format_duration(self.args.timeout));
        let bound = format_duration(self.args.interval + self.args.timeout);
        let app = if built_in { "the built-in echo app".to_owned() } else { self.app.to_string() };

        writeln!(f, "TLS and heartbeats in front of {app}")?;
        if self.args.listen.is_none() && port != ADDRESS.port() {
            writeln!(f, "Port {} is taken; this is port {port}.", ADDRESS.port())?;
        }
        if self.args.inspect.is_none() && self.inspect.port() != INSPECT.port() {
            writeln!(f, "Port {} is taken; the inspect page is on port {}.", INSPECT.port(), self.inspect.port())?;
        }
        writeln!(f)?;
        writeln!(f, "  https      {https}")?;
        writeln!(f, "  WebSocket  {wss}")?;
        writeln!(f, "  inspect    http://{}/", self.inspect)?;
        writeln!(f, "  heartbeat  a ping after {interval} of silence, {timeout} to answer, then both legs are closed")?;
        writeln!(f, "  CA         {ca}, for this run only")?;
        writeln!(f)?;
        writeln!(f, "Trust the CA, which is valid for localhost only:")?;
        writeln!(f, "  curl       curl --cacert {ca} {https}")?;
        writeln!(f, "  Node       NODE_EXTRA_CA_CERTS={ca} node client.js")?;
        writeln!(f, "  Chromium   chrome://certificate-manager, Custom, Import; or accept the warning once")?;
        writeln!(f, "  Debian     sudo cp {ca} /usr/local/share/ca-certificates/pulsegate-dev.crt")?;
        writeln!(f, "             sudo update-ca-certificates")?;
        writeln!(f)?;
        if !built_in {
            writeln!(f, "Express: `app.set('trust proxy', 'loopback')`, or secure cookies are not set.")?;
            writeln!(f)?;
        }
        writeln!(f, "Try it from another terminal:")?;
        writeln!(f, "  {} ping --interval 1m --ca {ca} {wss}", program())?;
        writeln!(f, "Ctrl-Z there simulates a dead client: within {bound} both its legs are closed.")?;
        writeln!(f, "The inspect page shows it, and so does")?;
        writeln!(f, "  {} top --admin {}", program(), self.inspect)?;
        writeln!(f)?;
        write!(f, "Events are shown here; Ctrl-C ends it.")
    }
}

/// Returns the command by which this program was started, for lines to copy into a shell.
fn program() -> String {
    std::env::args_os().next().map_or_else(|| "pulsegate".to_owned(), |path| path.to_string_lossy().into_owned())
}

/// Writes a paragraph to standard output.
fn print(paragraph: &impl Display) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{paragraph}\n")?;
    out.flush()
}

/// Returns the hint for a request that could not be connected to `app`.
fn unreachable(app: &UpstreamSettings, unusable: &Unusable) -> String {
    let Unusable { error, help, .. } = unusable;
    let cause = error.rsplit(": ").next().unwrap_or(error);
    let cause = cause.split(" (os error").next().unwrap_or(cause).to_lowercase();
    let question = match &app.target {
        _ if !matches!(cause.as_str(), "connection refused" | "no such file or directory") => {
            return format!("No connection to {app}: {error}. Remedy: {help}.");
        }
        UpstreamTarget::Tcp { host, .. } if &**host == "127.0.0.1" => ", and on 127.0.0.1 rather than ::1",
        UpstreamTarget::Tcp { host, .. } if &**host == "::1" => ", and on ::1 rather than 127.0.0.1",
        UpstreamTarget::Tcp { .. } => ", and on that address and port",
        UpstreamTarget::Unix(_) => ", and on that socket",
    };
    format!("Nothing answers at {app} ({cause}). Is the app started{question}?")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn an_app_that_is_not_there_is_asked_for_in_words() {
        let at = |host: &str| UpstreamSettings::at(UpstreamTarget::Tcp { host: host.into(), port: 3000 });
        let refused = "cannot connect to the upstream at 127.0.0.1:3000: Connection refused (os error 111)";
        let advice = |app: &UpstreamSettings, error: &str| {
            unreachable(app, &Unusable { error: error.to_owned(), help: "do this".to_owned(), pin: None })
        };
        assert_snapshot!(advice(&at("127.0.0.1"), refused), @"Nothing answers at http://127.0.0.1:3000 (connection refused). Is the app started, and on 127.0.0.1 rather than ::1?");
        assert_snapshot!(advice(&at("::1"), refused), @"Nothing answers at http://[::1]:3000 (connection refused). Is the app started, and on ::1 rather than 127.0.0.1?");
        assert_snapshot!(advice(&at("localhost"), refused), @"Nothing answers at http://localhost:3000 (connection refused). Is the app started, and on that address and port?");
        let missing = "cannot connect to the upstream at /a.sock: No such file or directory (os error 2)";
        assert_snapshot!(advice(&UpstreamSettings::at(UpstreamTarget::Unix("/a.sock".into())), missing), @"Nothing answers at unix:/a.sock (no such file or directory). Is the app started, and on that socket?");
        assert_snapshot!(advice(&at("app"), "no TLS with the upstream at app:3000: it does not speak TLS"), @"No connection to http://app:3000: no TLS with the upstream at app:3000: it does not speak TLS. Remedy: do this.");
    }

    #[test]
    fn a_port_alone_is_answered_with_a_url() {
        let Cli { args } = Cli::parse_from(["dev", "--to", "3000"]);
        let error = |to: &str| settings(&args, to).expect_err("no URL").to_string();
        assert_snapshot!(error("3000"), @r#"--to must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write "http://127.0.0.1:3000")"#);
        assert_snapshot!(error("localhost:3000"), @r#"--to must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write "http://localhost:3000")"#);
        assert_snapshot!(error("99999"), @r#"--to must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (99999 is no port: ports go up to 65535)"#);
    }

    #[test]
    fn a_fault_names_the_flag() {
        let Cli { args } = Cli::parse_from(["dev", "--to", "ftp://app"]);
        let error = settings(&args, "ftp://app").expect_err("no such scheme").to_string();
        assert!(error.starts_with("--to must be \"http://host:port\"") && !error.contains('\n'), "{error}");
    }

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: DevArgs,
    }

    #[test]
    fn only_addresses_that_the_certificate_can_serve_are_taken() {
        for fits in ["127.0.0.1:0", "127.0.0.2:8443", "[::1]:8443", "0.0.0.0:8443", "[::]:8443"] {
            assert!(listen(fits).is_ok(), "{fits}");
        }
        assert!(listen("192.0.2.1:8443").expect_err("not loopback").contains("loopback"));
        assert!(loopback("127.0.0.1:0").is_ok() && loopback("[::1]:4040").is_ok());
        assert!(loopback("0.0.0.0:4040").expect_err("everywhere").contains("this machine alone"));
        assert!(loopback("4040").expect_err("no address").contains("such as 127.0.0.1:4040"));
        assert!(listen("8443").expect_err("no address").contains("such as 127.0.0.1:8443"));
    }
}
