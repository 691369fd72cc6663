//! The start: the app's environment, the wait for it, and the diagnoses of apps that cannot be reached.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::node::project;
use pulsegate_test_kit::pki::Pki;
use pulsegate_test_kit::process::{OutputLine, Process, send};
use pulsegate_test_kit::wait::{TIMEOUT, wait_for, wait_until_async};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_rustls::TlsConnector;

use super::{IN_ORDER, answers, app_pid, config, dev, file, is_gone, run};
use crate::PULSEGATE;

/// Waits for a line of the log with these words, ends the program, and fails unless the app has ended with it.
async fn diagnosed(way: &[&str], words: &[&str]) -> OutputLine {
    let folder = project("child");
    let words_of_app: Vec<&str> = ["--", "node", "app.js"].iter().chain(way).copied().collect();
    let mut process = Process::start_without_input("pulsegate dev", &mut dev(&folder, &words_of_app));
    let app = app_pid(&process).await;
    let line = process.line(words[0], |line| words.iter().all(|word| line.text.contains(word))).await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(IN_ORDER), "{}", process.transcript());
    is_gone(app).await;
    line
}

/// Runs a command that ends by itself.
async fn ends(command: &mut Command) -> pulsegate_test_kit::process::Finished {
    Process::run("pulsegate", command).await
}

#[tokio::test]
async fn the_app_gets_a_port_and_is_reached_through_the_proxy() {
    let mut proxy = run(config(), &[], &[]).await;
    let started = proxy.event("started", |_| true).await;
    assert_eq!((&started["host"], &started["tty"]), (&"127.0.0.1".into(), &false.into()), "{started}");
    let listening = proxy.logged("listening").remove(0);
    let port = started["port"].as_str().expect("a port");
    assert_eq!(listening["upstream"], format!("http://127.0.0.1:{port}"), "{listening}");
    answers(&proxy).await;
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(IN_ORDER), "{}", proxy.transcript());
}

/// Starts `run` on these two addresses, with an app that listens once it gets SIGUSR2.
fn run_awaiting(dir: &Path, pki: &Pki, listen: SocketAddr, health: SocketAddr) -> Process {
    let mut command = Command::new(PULSEGATE);
    command.args(["run", "--log-format", "json", "--listen", &listen.to_string(), "--certificate"]);
    command.arg(&pki.certificate).arg("--private-key").arg(&pki.private_key);
    command.args(["--", "node", &file("app.js"), "when-told"]).current_dir(dir);
    command.env("PULSEGATE__ADMIN__HEALTH", health.to_string()).env("PULSEGATE__ADMIN__SOCKET", "off");
    command.env("PULSEGATE__DRAIN__DELAY", "0s").env("PULSEGATE__DRAIN__WINDOW", "0s");
    Process::start_without_input("pulsegate", &mut command)
}

/// Returns addresses of loopback that nothing listens on.
fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("an address"))
}

#[tokio::test]
async fn health_answers_while_the_app_is_awaited_and_clients_wait() {
    let dir = TempDir::new().expect("a folder");
    let pki = Pki::make(dir.path());
    let [listen, health] = free_addresses();
    let mut process = run_awaiting(dir.path(), &pki, listen, health);
    let app = app_pid(&process).await;
    let answers = async || {
        let mut bodies = Vec::new();
        for path in ["/livez", "/startupz", "/readyz"] {
            let answer = get(health.port(), path).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
            bodies.push(format!("{} {}", head.split(' ').nth(1).expect("a status"), body.trim()));
        }
        bodies
    };
    let port = process.events("started")[0]["port"].as_str().expect("a port").to_owned();
    let awaited = format!("503 starting: the app does not listen on http://127.0.0.1:{port} yet");
    wait_until_async("health", answers, |bodies| bodies[..] == ["200 alive", "200 started", &*awaited]).await;
    // A client that comes now is served once the app listens.
    let client = async {
        let stream = TcpStream::connect(listen).await.expect("the port is open");
        send(app, Signal::USR2);
        let name = "localhost".try_into().expect("a name");
        let handshake = TlsConnector::from(pki.client()).connect(name, stream);
        let mut stream = handshake.await.expect("a handshake");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("written");
        Response::read(&mut stream).await.expect("a response").status
    };
    assert_eq!(wait_for("the client's response", client).await, 200);
    wait_until_async("health", answers, |bodies| bodies[..] == ["200 alive", "200 started", "200 ready"]).await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(IN_ORDER), "{}", process.transcript());
}

#[tokio::test]
async fn a_signal_while_the_app_is_awaited_ends_both_in_order() {
    let dir = TempDir::new().expect("a folder");
    let [listen, health] = free_addresses();
    let mut process = run_awaiting(dir.path(), &Pki::make(dir.path()), listen, health);
    let app = app_pid(&process).await;
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(IN_ORDER), "{}", process.transcript());
    is_gone(app).await;
    let stopped = process.line("the last line", |line| line.json["message"] == "stopped").await.json;
    assert_eq!(stopped["clean"], true, "{stopped}");
}

#[tokio::test]
async fn dev_starts_the_app_too_and_prints_its_guide_once_it_listens() {
    let folder = project("child");
    let mut process =
        Process::start_without_input("pulsegate dev", &mut dev(&folder, &["--", "node", "app.js", "slow"]));
    process.line("the progress", |line| line.text.contains("app.starting")).await;
    process.line("the guide", |line| line.text.contains("Ctrl-C ends it")).await;
    let lines: Vec<String> = process.lines().into_iter().map(|line| line.text).collect();
    let at = |part: &str| {
        lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part}: {lines:?}"))
    };
    assert!(at("\"listening\"") < at("TLS and heartbeats in front of http://127.0.0.1:"), "{lines:#?}");
    process.interrupt();
    assert_eq!(process.ended().await.code(), Some(IN_ORDER), "{}", process.transcript());
}

#[tokio::test]
async fn an_app_that_listens_elsewhere_is_diagnosed() {
    tokio::join!(
        diagnosed(
            &["ignores-port"],
            &["app.not_listening", "instead of 127.0.0.1:", "process.env.PORT", "--to http://127.0.0.1:"]
        ),
        diagnosed(&["ipv6"], &["app.not_listening", "it listens on [::1]:", " only", "process.env.HOST"]),
        diagnosed(&["nowhere"], &["app.not_listening", "it runs, but listens nowhere"]),
        diagnosed(&["stops"], &["app.not_listening", "(node) is stopped by SIGSTOP", "kill -CONT "]),
        diagnosed(&["loop"], &["app.not_listening", "its processes end and start again"]),
        diagnosed(&["everywhere"], &["app.exposed", "clients can bypass the proxy", "process.env.HOST"]),
    );
}

#[tokio::test]
async fn an_app_on_a_unix_socket_is_diagnosed_and_can_be_named() {
    let dir = TempDir::new().expect("a folder");
    let socket = dir.path().join("app.sock").display().to_string();
    let to = format!("unix:{socket}");
    diagnosed(&["unix", &socket], &["app.not_listening", "unix socket", &format!("--to {to}")]).await;
    // The first app has left its socket.
    fs::remove_file(&socket).expect("it is there");
    let proxy = run(config(), &["--upstream", &to], &["unix", &socket]).await;
    let started = proxy.event("started", |_| true).await;
    assert_eq!(started["port"], serde_json::Value::Null, "{started}");
    answers(&proxy).await;
}

#[tokio::test]
async fn an_app_whose_address_is_named_gets_its_port() {
    let port = TcpListener::bind("[::1]:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let url = format!("http://[::1]:{port}");
    let proxy = run(config(), &["--upstream", &url], &[]).await;
    let started = proxy.event("started", |_| true).await;
    assert_eq!((&started["port"], &started["host"]), (&port.to_string().into(), &"::1".into()), "{started}");
    answers(&proxy).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_named_with_the_way_out() {
    let dir = TempDir::new().expect("a folder");
    let missing = ends(&mut dev(dir.path(), &["--", "nod", "server.js"])).await;
    missing.failed(127, &["cannot start the app: there is no program `nod`", "did you mean `node`?"]);
    fs::write(dir.path().join("server.js"), "").expect("written");
    let script = ends(&mut dev(dir.path(), &["--", "./server.js"])).await;
    script.failed(126, &["`./server.js` is not executable", "write `node ./server.js`"]);
    fs::write(dir.path().join("bad"), "#!/no/such/interpreter\n").expect("written");
    fs::set_permissions(dir.path().join("bad"), fs::Permissions::from_mode(0o755)).expect("it is there");
    let bad = ends(&mut dev(dir.path(), &["--", "./bad"])).await;
    bad.failed(127, &["the interpreter or loader of `./bad` does not exist", "correct the file's first line"]);
    let behind = ends(&mut dev(dir.path(), &["--", "sh", "-c", "true & exit 0"])).await;
    behind.failed(0, &["it exited with 0 before it listened", "let it run in the foreground"]);
    let no_file = ends(&mut dev(dir.path(), &["--", "node", "app.js"])).await;
    no_file.failed(1, &["app.not_started", "it exited with 1 before it listened", "there is no app.js in /"]);
    let elsewhere = ends(&mut dev(dir.path(), &["--", "node", "/nowhere/app.js"])).await;
    elsewhere.failed(1, &["app.not_started", "there is no /nowhere/app.js: correct its path"]);
    let no_package = ends(&mut dev(dir.path(), &["--", "npm", "start"])).await;
    assert!(no_package.err.contains("there is no package.json in /") && no_package.code != Some(0), "{no_package:#?}");
    let crash = ends(&mut dev(&project("child"), &["--", "node", "app.js", "crash"])).await;
    crash.failed(1, &["crashed at once", "it exited with 1 before it listened on 127.0.0.1:", "read its output above"]);
    let ended = ends(&mut dev(&project("child"), &["--", "sh", "-c", "exit 42"])).await;
    ended.failed(42, &["it exited with 42 before it listened"]);
    let killed = ends(&mut dev(&project("child"), &["--", "sh", "-c", "kill -KILL $$"])).await;
    killed.failed(137, &["it was killed by signal 9 before it listened"]);
}

#[tokio::test]
async fn a_file_that_the_user_may_not_read_is_not_called_missing() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let dir = TempDir::new().expect("a folder");
    let app = dir.path().join("app.js");
    fs::write(&app, "").expect("written");
    fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).expect("changed");
    // The folder of another user, who lets nobody in.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("changed");
    chown(dir.path(), Some(65_533), Some(65_533)).expect("run the tests as root");
    let app = app.display().to_string();
    let as_nobody = |words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
        command.args([PULSEGATE, "dev", "--listen", "127.0.0.1:0", "--inspect", "127.0.0.1:0", "--"]).args(words);
        command
    };
    let unread = ends(&mut as_nobody(&["node", &app])).await;
    unread.failed(
        1,
        &["app.not_started", &format!("{app}: the user 65534 may not read it"), "start pulsegate as its owner"],
    );
    assert!(!unread.err.contains("there is no "), "{unread:#?}");
    let hidden = ends(&mut as_nobody(&[&app])).await;
    hidden.failed(126, &["is not executable; the user 65534 may not enter its folder: allow it with chmod"]);
}

#[tokio::test]
async fn errors_before_the_start_start_nothing() {
    let dir = TempDir::new().expect("a folder");
    let mark = dir.path().join("started");
    let touch = ["--", "touch", mark.to_str().expect("UTF-8")];
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let mut command = Command::new(PULSEGATE);
    let refused = ends(command.args(["dev", "--listen", &address]).args(touch)).await;
    refused.failed(1, &["cannot listen on"]);
    let mut command = Command::new(PULSEGATE);
    let refused = ends(command.arg("run").args(touch).current_dir(dir.path())).await;
    refused.failed(78, &["certificate"]);
    let mut command = Command::new(PULSEGATE);
    let refused = ends(command.args(["run", "--stop-within", "10s"]).current_dir(dir.path())).await;
    refused.failed(2, &["COMMAND"]);
    for command in ["run", "dev"] {
        let refused = ends(Command::new(PULSEGATE).args([command, "node", "server.js"]).current_dir(dir.path())).await;
        refused.failed(2, &[&format!("the app's command follows --, as in pulsegate {command} -- node")]);
    }
    for command in ["run", "dev", "check"] {
        for words in [&["--"][..], &["--", ""]] {
            let refused = ends(Command::new(PULSEGATE).arg(command).args(words).current_dir(dir.path())).await;
            refused.failed(2, &["the app's command after -- is empty", "as in `-- node server.js`"]);
        }
    }
    let nowhere = dir.path().join("none/ca.pem").display().to_string();
    let refused = ends(&mut dev(dir.path(), &[&["--ca-out", &nowhere], &touch[..]].concat())).await;
    refused.failed(1, &[&format!("cannot write {nowhere}: No such file"), "with --ca-out"]);
    let mut command = Command::new("sh");
    let few = command.args(["-c", "ulimit -n 12; exec \"$0\" dev \"$@\"", PULSEGATE]).args(touch);
    ends(few).await.failed(1, &["Too many open files", "ulimit -n 1024"]);
    assert!(!mark.exists(), "the app was started");
}

#[tokio::test]
async fn a_program_at_the_address_of_the_app_is_not_taken_for_it() {
    let dir = TempDir::new().expect("a folder");
    let mark = dir.path().join("started");
    let touch = ["--", "touch", mark.to_str().expect("UTF-8")];
    let own = format!("(process {})", std::process::id());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let to = format!("http://{address}");
    let refused = ends(&mut dev(dir.path(), &[&["--to", &to], &touch[..]].concat())).await;
    refused.failed(1, &["cannot start the app: ", &own, &format!("already listens on {address}"), "with --to"]);
    let socket = dir.path().join("app.sock");
    let _taken = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let to = format!("unix:{}", socket.display());
    let refused = ends(&mut dev(dir.path(), &[&["--to", &to], &touch[..]].concat())).await;
    refused.failed(1, &["cannot start the app: ", &own, "already listens on ", "with --to"]);
    assert!(!mark.exists(), "the app was started");
}

#[tokio::test]
async fn without_tls_the_proxy_takes_the_port_of_the_platform() {
    let dir = TempDir::new().expect("a folder");
    let text = "[tls]\nmode = \"off\"\n[forwarded]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[admin]\nhealth = \"off\"\nsocket = \"off\"\n[drain]\ndelay = \"0s\"\n[log]\nformat = \"json\"\n";
    let path = dir.path().join("proxy.toml");
    fs::write(&path, text).expect("written");
    let on_port = |port: &str| {
        let mut command = Command::new(PULSEGATE);
        command.arg("run").arg("-c").arg(&path).args(["--", "node", &file("app.js")]).env("PORT", port);
        command
    };
    let wrong = ends(&mut on_port("web")).await;
    wrong.failed(78, &["\"message\":\"config.invalid\"", "which is no port for clients", "set listen.address"]);
    let port = TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port").port();
    let mut process = Process::start_without_input("pulsegate", &mut on_port(&port.to_string()));
    let listening = process.line("it listens", |line| line.json["message"] == "listening").await.json;
    assert_eq!(listening["address"], format!("0.0.0.0:{port}"), "{listening}");
    let started = process.event("started", |_| true).await;
    assert_ne!(started["port"], port.to_string(), "{started}");
    let body = get(port, "/").await;
    assert!(body.starts_with("HTTP/1.1 200 OK"), "{body}");
    process.terminate();
    assert_eq!(process.exit_within(TIMEOUT).await.code(), Some(IN_ORDER));
}

/// Returns the answer to a plain request.
async fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("it listens");
    let head = format!("GET {path} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    let read = wait_for("an answer", stream.read_to_string(&mut answer)).await;
    read.expect("an answer");
    answer
}

#[tokio::test]
async fn a_command_that_cannot_start_is_a_line_of_the_log_in_json() {
    let dir = TempDir::new().expect("a folder");
    let pki = Pki::make(dir.path());
    let mut command = Command::new(PULSEGATE);
    command.args(["run", "--listen", "127.0.0.1:0", "--log-format", "json", "--certificate"]).arg(&pki.certificate);
    command.arg("--private-key").arg(&pki.private_key).args(["--", "nod"]).current_dir(dir.path());
    command.env("PULSEGATE__ADMIN__HEALTH", "off").env("PULSEGATE__ADMIN__SOCKET", "off");
    let refused = ends(&mut command).await;
    refused.failed(127, &["\"message\":\"fatal\"", "there is no program `nod`"]);
}
