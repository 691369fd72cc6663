//! A proxy that orders its certificate, and the looks of a test at what it presents.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pulsegate::tls::client::{TlsClient, Trust};
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::wait::wait_for;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::PULSEGATE;

/// The name that is ordered; it leads to 127.0.0.1 by the name server of the test.
pub(super) const NAME: &str = "app.acme.test";

/// An order on a busy machine.
pub(super) const ORDER: Duration = Duration::from_secs(60);

/// The ports of a proxy, chosen before it starts: an authority has to know them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) tls: u16,
    pub(super) plain: u16,
    pub(super) health: u16,
}

impl Ports {
    pub(super) fn free() -> Self {
        let [tls, plain, health] = free_ports();
        Self { tls, plain, health }
    }
}

/// Returns ports that nothing listens on; all are held until all are chosen. They lie below those that the system chooses
/// itself: a connection of another test would take one of these in the time until it is opened.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let free = || {
        let tried =
            (0..1000).find_map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(11_000..20_000))).ok());
        tried.expect("a free port")
    };
    let held = [(); N].map(|()| free());
    held.map(|listener| listener.local_addr().expect("an address").port())
}

/// The folder of a proxy: its configuration and its storage.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) folder: Arc<TempDir>,
    pub(super) ports: Ports,
    pub(super) directory: String,
    pub(super) ca: PathBuf,
    /// More lines of `[tls.acme]`.
    pub(super) acme: String,
    /// More sections.
    pub(super) more: String,
    pub(super) domains: Vec<&'static str>,
}

impl Site {
    pub(super) fn at(directory: &str, ca: &Path, ports: Ports) -> Self {
        Self {
            folder: Arc::new(TempDir::with_prefix("pulsegate-acme-").expect("make a temporary directory")),
            ports,
            directory: directory.to_owned(),
            ca: ca.into(),
            acme: String::new(),
            more: String::new(),
            domains: vec![NAME],
        }
    }

    /// Sets more lines of `[tls.acme]`.
    pub(super) fn with(mut self, acme: &str) -> Self {
        acme.clone_into(&mut self.acme);
        self
    }

    /// The folder of its files, of whichever authority.
    pub(super) fn storage(&self) -> PathBuf {
        let mut folders = fs::read_dir(self.folder.path().join("storage")).expect("the storage").flatten();
        folders.next().expect("the folder of the authority").path()
    }

    /// Makes the folder of its files, as a proxy makes it, and returns it.
    pub(super) fn make_storage(&self) -> PathBuf {
        let authority = self.directory.trim_start_matches("https://").replace([':', '/'], "-");
        let folder = self.folder.path().join("storage").join(authority);
        fs::create_dir_all(&folder).expect("a folder");
        for folder in [folder.parent().expect("the storage"), &folder] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).expect("permissions");
        }
        folder
    }

    /// Puts a certificate of ninety days for its names into the storage, in `file`.
    pub(super) fn put_certificate(&self, file: &str) {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = self.domains.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let now = SystemTime::now();
        (params.not_before, params.not_after) = (now.into(), (now + Duration::from_secs(90 * 86_400)).into());
        let pem = params.self_signed(&key).expect("a certificate").pem() + &key.serialize_pem();
        let file = self.make_storage().join(file);
        fs::write(&file, pem).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
    }

    /// The file of its certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.storage().join(format!("{NAME}.pem"))
    }

    /// The names of its files.
    pub(super) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.storage()).expect("the storage").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The names of its certificates' files.
    pub(super) fn pem_files(&self) -> Vec<String> {
        let is_pem = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "pem");
        self.files().into_iter().filter(is_pem).collect()
    }

    /// Writes its configuration, and returns the file.
    pub(super) fn write(&self) -> PathBuf {
        let Ports { tls, plain, health } = self.ports;
        let Self { directory, acme, more, domains, .. } = self;
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:{tls}\"\nredirect = \"127.0.0.1:{plain}\"\nworkers = 2\n\
             [tls.acme]\ndomains = {domains:?}\ncontact = [\"ops@acme.test\"]\ndirectory = \"{directory}\"\n\
             ca = \"{}\"\nstorage = \"storage\"\n{acme}\n\
             [upstream]\nurl = \"http://127.0.0.1:9\"\n\
             [drain]\ndelay = \"0s\"\nwindow = \"0s\"\n\
             [admin]\nhealth = \"127.0.0.1:{health}\"\nsocket = \"off\"\n\
             [log]\nformat = \"json\"\nlevel = \"info,pulsegate::acme=debug\"\n{more}",
            self.ca.display()
        );
        let file = self.folder.path().join("proxy.toml");
        fs::write(&file, text).expect("write the configuration");
        file
    }

    /// Starts a proxy of this site.
    pub(super) async fn start(&self) -> RunningSite {
        let file = self.write();
        let process = Process::start_without_input("pulsegate", Command::new(PULSEGATE).arg("run").arg("-c").arg(file));
        let running = RunningSite { process, site: self.clone() };
        running.logged("listening").await;
        running
    }

    /// Runs `pulsegate run`, which is expected to end by itself.
    pub(super) async fn run(&self) -> pulsegate_test_kit::process::Finished {
        Process::run("pulsegate run", Command::new(PULSEGATE).arg("run").arg("-c").arg(self.write())).await
    }

    /// Runs `pulsegate check`.
    pub(super) async fn check(&self) -> pulsegate_test_kit::process::Finished {
        Process::run("pulsegate check", Command::new(PULSEGATE).arg("check").arg("-c").arg(self.write())).await
    }
}

/// A running proxy of a site.
pub(super) struct RunningSite {
    pub(super) process: Process,
    pub(super) site: Site,
}

impl RunningSite {
    /// Waits for a line of its log with this message.
    pub(super) async fn logged(&self, message: &str) -> serde_json::Value {
        let is_it = |line: &pulsegate_test_kit::process::OutputLine| line.json["message"] == message;
        self.process.line_within(ORDER, message, is_it).await.json
    }

    /// The lines of its log with this message so far.
    pub(super) fn lines(&self, message: &str) -> Vec<serde_json::Value> {
        let lines = self.process.lines().into_iter().map(|line| line.json);
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Performs a handshake; `None` if it is refused, otherwise the pin of the certificate's key.
    pub(super) async fn presents(&self) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.site.ports.tls));
        let tcp = wait_for("a connection", TcpStream::connect(address)).await.expect("it listens");
        let client = TlsClient::new(&Trust::AnyCertificate, None).expect("a client");
        let stream = wait_for("a handshake", client.handshake(NAME, tcp)).await.ok()?;
        pulsegate::tls::client::pin_of(&stream).map(|pin| pin.to_string())
    }

    /// Returns the response of the plain port to a GET of `path`.
    pub(super) async fn plain(&self, path: &str) -> String {
        request(self.site.ports.plain, path).await
    }

    /// Returns a metric's value.
    pub(super) async fn metric(&self, line: &str) -> Option<f64> {
        let text = request(self.site.ports.health, "/metrics").await;
        let found = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(' ').map(str::to_owned));
        found.map(|value| value.trim().parse().expect("a number"))
    }

    /// Ends it; fails unless it ends in order.
    pub(super) async fn end(self) -> String {
        self.process.terminate();
        let finished = self.process.finish().await;
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        assert!(!finished.err.contains("panicked"), "{finished:#?}");
        finished.err
    }
}

async fn request(port: u16, path: &str) -> String {
    let exchange = async {
        let mut tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens");
        let head = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.expect("it answers");
        text
    };
    wait_for(path, exchange).await
}
