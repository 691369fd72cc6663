//! `pulsegate dev`: runs the proxy on a developer's machine, without any setup.

mod arguments;
mod authority;
mod browser;
mod echo;
mod guide;
mod kept_ca;
mod lan;
mod live;
mod published;
mod shell;
mod trust;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail};

pub use self::arguments::DevArgs;
use self::arguments::{ADDRESS, INSPECT};
use self::authority::Authority;
use self::echo::{Echo, PageContent, Port};
use self::guide::{AuthorityOrigin, Guide};
use self::kept_ca::{KeptCa, KeptCaFiles};
use self::live::PageSessions;
use self::published::Published;
use self::trust::TrustRequest;
use super::app::AppLaunch;
use crate::child::free_port;
use crate::config::{
    self, AdminSocket, Environment, Overrides, Settings, UpstreamSettings, UpstreamTarget, UserEnvironment,
};
use crate::drain::{OnHangup, Shutdown};
use crate::server::{Server, StartError};
use crate::telemetry::{self, HeartbeatLogging};
use crate::tls::ServerConfigs;
use crate::upstream::Unusable;

/// Runs the proxy until a signal ends it.
///
/// # Errors
///
/// The flags are invalid, the CA cannot be installed, a port cannot be opened, or the proxy fails.
pub fn run(args: &DevArgs) -> anyhow::Result<ExitCode> {
    let user = UserEnvironment::of_process();
    let trust = TrustRequest { user: &user, root: args.trust.trust_root.as_deref(), agreed: args.trust.yes };
    if args.trust.untrust {
        return trust::remove(&trust).map(|()| ExitCode::SUCCESS);
    }
    if let Some(path) = &args.ca_out {
        published::check_replaceable(path).map_err(|error| unwritable(path, &error))?;
    }
    let lan = lan(args)?;
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

    let (authority, origin) = authority(args, &trust, lan)?;
    let pem = authority.pem().to_owned();
    let app = Arc::clone(&settings.upstream);
    let server = bind(&settings, authority, lan, args)?;
    let server = {
        let app = Arc::clone(&app);
        server.for_development(move |unusable| drop(print(&unreachable(&app, unusable))))
    };
    let published = publish(args.ca_out.as_deref(), server.address().port(), &pem, &origin)?;

    let inspect = match server.admin_address() {
        Some(AdminSocket::Tcp(address)) => *address,
        other => anyhow::bail!("the inspect page has no port, but {other:?}"),
    };
    // The built-in app runs as long as `_echo` exists.
    let content = PageContent { interval: args.interval, timeout: args.timeout, inspect, authority: &pem };
    let sessions = PageSessions::new(Arc::clone(server.registry()));
    let echo = port.map(|port| Echo::start(port, &content, sessions));
    let _echo = echo.transpose().context("cannot start the echo app")?;
    let places = trust::places(&trust);
    let guide =
        Guide { args, app, address: server.address(), inspect, authority: published.path(), origin, lan, places };
    // The text names Ctrl-C, which removes the certificate only once signals are handled, so it is printed after that.
    let Some(command) = command else {
        return Ok(server
            .run_announced(Shutdown::on_signals(), || announce(&guide, &user))
            .map(|()| ExitCode::SUCCESS)?);
    };
    let (hangup, stop_within) = (OnHangup::Exit, args.app.stop_within());
    let launch = AppLaunch { command, address: &guide.app.target, flag: "--to", hangup, stop_within };
    launch.serve(|shutdown, listening| {
        let announced = async {
            let listens = listening.await;
            if listens {
                announce(&guide, &user)?;
            }
            Ok(listens)
        };
        server.run_behind(shutdown, announced)
    })
}

/// Prints the guide, with a QR code for a phone if that leads to a terminal, and opens a browser on request.
fn announce(guide: &Guide<'_>, user: &UserEnvironment) -> io::Result<()> {
    print(guide)?;
    if let Some(code) = guide.lan_url().filter(|_| io::stdout().is_terminal()).and_then(|url| lan::qr_code(&url)) {
        print(&code)?;
    }
    if guide.args.open {
        browser::open(&guide.url(), user, |fault| drop(print(&fault)));
    }
    Ok(())
}

/// Returns the address of this machine in the local network, on request.
fn lan(args: &DevArgs) -> anyhow::Result<Option<Ipv4Addr>> {
    let Some(wanted) = args.lan else { return Ok(None) };
    if let Some(listen) = args.listen.filter(|listen| listen.ip().is_loopback()) {
        bail!("--listen {listen} is for this machine alone: leave it out, or write --listen 0.0.0.0:{}", listen.port());
    }
    let address = lan::address(wanted)?;
    if args.trust.trust && !authority::is_private(address) {
        bail!("{address} is no private address, and the CA of --trust is for these only; leave out --trust or --lan");
    }
    Ok(Some(address))
}

/// Returns the authority: the one that is kept, or that `--trust` now makes and installs, and otherwise one for this run.
fn authority(
    args: &DevArgs,
    trust: &TrustRequest<'_>,
    lan: Option<Ipv4Addr>,
) -> anyhow::Result<(Authority, AuthorityOrigin)> {
    let (kept, note) = if args.trust.trust {
        (trust::install(trust)?, None)
    } else {
        // Without a folder for it none can be kept.
        match KeptCaFiles::of(trust.user).map(|files| files.load(SystemTime::now())) {
            Ok(Ok(kept)) => (kept, None),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_) => (None, None),
        }
    };
    let foreign = lan.filter(|address| !authority::is_private(*address));
    match (kept, foreign) {
        (Some(KeptCa { authority, not_after, certificate }), None) => {
            Ok((authority, AuthorityOrigin::Kept { not_after, certificate }))
        }
        (kept, _) => {
            let outside =
                || kept.and(foreign).map(|address| format!("{address} is outside the networks of the kept CA"));
            let authority = Authority::for_one_run(SystemTime::now(), lan).context("cannot make a certificate")?;
            Ok((authority, AuthorityOrigin::Run { note: note.or_else(outside) }))
        }
    }
}

/// Returns the settings of a configuration file with these flags and nothing else; the environment is not read.
fn settings(args: &DevArgs, app: &str) -> anyhow::Result<Settings> {
    let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), ADDRESS.port());
    let address = args.listen.unwrap_or(if args.lan.is_some() { everywhere } else { ADDRESS });
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
fn bind(settings: &Settings, authority: Authority, lan: Option<Ipv4Addr>, args: &DevArgs) -> anyhow::Result<Server> {
    let mut settings = settings.clone();
    let identity = authority.issue_for_machine(SystemTime::now(), lan).context("cannot make a certificate")?;
    let authority = Arc::new(authority);
    let certificates = || {
        let authority = Arc::clone(&authority);
        let issue = move |name: &str| authority.issue_below_localhost(SystemTime::now(), name);
        ServerConfigs::from(identity.clone()).with_on_demand(issue)
    };
    // Each address is replaced once at most: a port that the system chooses is free.
    for _ in 0..2 {
        match Server::bind(settings.clone(), certificates()) {
            Err(StartError::Listen { source, .. })
                if args.listen.is_none() && source.kind() == io::ErrorKind::AddrInUse =>
            {
                settings.listen.address.set_port(0);
            }
            Err(error) if args.inspect.is_none() && error.is_admin_port_taken() => {
                settings.admin.socket = Some(AdminSocket::Tcp(SocketAddr::new(INSPECT.ip(), 0)));
            }
            other => return Ok(other?),
        }
    }
    Ok(Server::bind(settings, certificates())?)
}

/// Returns the file of the authority's certificate, which is written unless it is kept.
fn publish(wanted: Option<&Path>, port: u16, pem: &str, origin: &AuthorityOrigin) -> anyhow::Result<Published> {
    match (wanted, origin) {
        (Some(path), _) => Published::to(path, pem).map_err(|error| unwritable(path, &error)),
        (None, AuthorityOrigin::Kept { certificate, .. }) if Published::holds(certificate, pem) => {
            Ok(Published::kept(certificate))
        }
        (None, _) => {
            Published::temporarily(port, pem).context("cannot write a temporary file; --ca-out names another place")
        }
    }
}

/// Returns the error for a file of `--ca-out`.
fn unwritable(path: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = "name a file in a folder that exists, and that you may write to, with --ca-out";
    anyhow!("cannot write {}: {error}; {remedy}", path.display())
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
}
