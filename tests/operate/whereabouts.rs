//! The address of the proxy's admin API, and every failure to find it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use crate::operate::fake::{Answer, Fake, Request, error, page};
use crate::operate::program::{command, finish, run};

/// Answers with no sessions to a request with the token.
fn guarded(request: &Request) -> Answer {
    if request.head.contains("\r\nauthorization: bearer 0123456789abcdef") {
        page(&[], 0, None)
    } else {
        error(401, "token", "a bearer token is needed")
    }
}

#[tokio::test]
async fn an_absent_proxy_is_reported_with_the_address_and_a_remedy() {
    let dir = TempDir::new().expect("make a temporary directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let absent = run(&["conns", "--admin", &at("none.sock")]).await;
    absent.failed(1, &["there is no socket", "none.sock", "is pulsegate running here?", "--admin"]);
    // A process that was killed leaves its socket behind.
    drop(UnixListener::bind(at("stale.sock")).expect("bind"));
    run(&["reload", "--admin", &at("stale.sock")]).await.failed(1, &["no process listens on", "stale.sock"]);
    fs::write(at("file"), "").expect("write a file");
    run(&["kill", "00000000000000a1", "--admin", &at("file")]).await.failed(1, &["file is no socket", "--admin"]);
    let closed = { std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port") };
    run(&["top", "--admin", &closed.to_string()]).await.failed(1, &["no process listens on", &closed.to_string()]);
    run(&["conns", "--admin", "http://nowhere.invalid:4040"]).await.failed(1, &["cannot find the host", "nowhere"]);
}

#[tokio::test]
async fn a_socket_of_another_user_is_reported() {
    if rustix::process::geteuid().is_root() {
        // Root may read every file.
        return;
    }
    let dir = TempDir::new().expect("make a temporary directory");
    let socket = dir.path().join("admin.sock");
    let _listener = UnixListener::bind(&socket).expect("bind");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).expect("take the permission away");
    let run = run(&["conns", "--admin", &socket.display().to_string()]).await;
    run.failed(1, &["may not open", "sudo -u"]);
}

#[tokio::test]
async fn a_server_other_than_pulsegate_is_detected() {
    let html = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
    let plain = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n";
    let cases = [
        (Answer::Raw(html.into()), "is not a pulsegate's admin API: it does not answer in JSON"),
        (Answer::Raw(plain.into()), "502"),
        (Answer::Raw("220 mail ESMTP\r\n".into()), "does not speak HTTP/1.1"),
        (Answer::Raw(vec![0x15, 3, 3, 0, 2, 2, 50]), "https://"),
        (Answer::HangUp, "broke before the answer was complete"),
    ];
    for (answer, says) in cases {
        let fake = Fake::on_a_port(move |_| answer.clone()).await;
        run(&["conns", "--admin", &fake.at]).await.failed(1, &[says, &fake.at]);
    }
}

#[tokio::test]
async fn a_token_comes_from_its_flag_or_the_configuration() {
    let fake = Fake::on_a_socket(guarded);
    let dir = TempDir::new().expect("make a temporary directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("token"), "0123456789abcdef\n").expect("write the token");
    fs::write(at("other"), "fedcba9876543210\n").expect("write the token");
    fs::write(at("proxy.toml"), format!("[admin]\nsocket = {:?}\ntoken_file = \"token\"\n", fake.at)).expect("write");

    run(&["conns", "--admin", &fake.at]).await.failed(1, &["requires a token", "--token-file"]);
    let wrong = run(&["conns", "--admin", &fake.at, "--token-file", &at("other")]).await;
    wrong.failed(1, &["does not accept the token in", &at("other")]);
    let missing = run(&["conns", "--admin", &fake.at, "--token-file", &at("none")]).await;
    missing.failed(1, &["cannot read the token from", "No such file"]);
    run(&["conns", "--admin", &fake.at, "--token-file", &at("token")]).await.succeeded();
    run(&["conns", "-c", &at("proxy.toml")]).await.succeeded();
    // The token of a configuration is sent to the address in the configuration, unless another address is given
    // explicitly.
    run(&["conns", "-c", &at("proxy.toml"), "--admin", &fake.at]).await.succeeded();
    let mut by_variable = command(&["conns", "--admin", &fake.at]);
    by_variable.env("PULSEGATE__ADMIN__TOKEN_FILE", at("token"));
    finish(by_variable).await.succeeded();
}

#[tokio::test]
async fn a_broken_configuration_is_no_reason_not_to_be_reached() {
    let fake = Fake::on_a_socket(|_| page(&[], 0, None));
    let dir = TempDir::new().expect("make a temporary directory");
    fs::create_dir(dir.path().join("config")).expect("make a folder");
    let file = dir.path().join("config/proxy.toml");
    let here = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.current_dir(dir.path());
        finish(command)
    };
    // Found by its default name; errors elsewhere in the file are not even mentioned.
    fs::write(&file, format!("[listen]\naddress = 7\n[admin]\nsocket = {:?}\n", fake.at)).expect("write");
    here(&["conns"]).await.succeeded();
    // An invalid key of the section itself is mentioned, and ignored.
    fs::write(&file, format!("[admin]\nsocket = {:?}\ntoken_file = \"none\"\n", fake.at)).expect("write");
    let warned = here(&["conns"]).await;
    assert_eq!(warned.code, Some(0), "{warned:#?}");
    assert!(warned.err.contains("warning: config/proxy.toml:3:") && warned.err.contains("token_file"), "{warned:#?}");
    // Without a socket there is no address to connect to.
    fs::write(&file, "[admin]\nsocket = \"off\"\n").expect("write");
    here(&["kill", "00000000000000a1"]).await.failed(1, &["`admin.socket` is \"off\" in config/proxy.toml", "--admin"]);
    // With an address on the command line no file is read at all.
    here(&["conns", "--admin", &fake.at]).await.succeeded();
    // Without the named file, the request would go to another proxy than the intended one.
    let missing = here(&["drain", "-c", "none.toml"]).await;
    missing.failed(1, &["cannot read none.toml", "-c names", "--admin", "No such file"]);
    let missing = here(&["healthcheck", "-c", "none.toml"]).await;
    missing.failed(1, &["cannot read none.toml", "-c names", "--address", "No such file"]);
}
