//! Clients that occupy the admin socket and the health port: the other clients are served all the same.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use pulsegate_test_kit::client::{Neighbour, echo};
use pulsegate_test_kit::open_files::raise_open_file_limit;
use pulsegate_test_kit::wait::{wait_for, wait_until, wait_until_async, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::admin::rig::{Rig, exchange, request};

/// More than the number of admitted connections.
const IDLE: usize = 300;
/// Far above the time of any answer, and far below the ten seconds after which an idle connection is closed.
const AT_ONCE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn idle_connections_do_not_delay_requests() {
    raise_open_file_limit(1024);
    let rig = Rig::start().await;
    let neighbour = Neighbour::join(&rig.proxy, "/echo").await;
    // One client that has sent a request before all others connect, and one that reads events.
    let mut asked = rig.connect().await;
    let head = request("GET", "/v1/info", ["Host: localhost"], "");
    assert_eq!(exchange(&mut asked, &head).await.status, 200);
    let mut events = crate::admin::events::Events::follow(&rig).await;

    let mut idle = join_all((0..IDLE).map(|_| rig.connect())).await;
    for stream in idle.iter_mut().take(IDLE / 3) {
        // A head that does not end. A connection that a newer one has replaced takes it no more.
        drop(stream.write_all(b"GET /v1/info HT").await);
    }
    for _ in 0..10 {
        let began = Instant::now();
        rig.get("/v1/connections").await;
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        neighbour.echoes().await;
    }
    let rest = wait_for("the first one is closed", asked.read(&mut [0])).await;
    assert_eq!(rest.ok(), Some(0), "it had been idle for longest");
    assert_eq!(events.of("stats").await.id, None, "who is being answered stays");
    drop(idle);

    // The same on the health port, which every host may reach.
    let idle = join_all((0..IDLE).map(|_| rig.health())).await;
    for _ in 0..10 {
        let began = Instant::now();
        let mut stream = rig.health().await;
        let reply = exchange(&mut stream, &request("GET", "/livez", ["Host: x"], "")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    drop(idle);
    neighbour.echoes().await;
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_head_and_a_body_that_trickle_are_given_up() {
    const HEAD: &str = "POST /v1/connections/close HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                        Content-Length: 1000\r\n\r\n";
    let rig = Rig::start().await;
    let began = Instant::now();
    let trickle = async |beginning: &str| {
        let mut stream = rig.connect().await;
        stream.write_all(beginning.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        let (mut reader, mut writer) = stream.split();
        let writing = async {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            std::future::pending::<()>().await;
        };
        let reading = async {
            let mut bytes = Vec::new();
            // The end, or a reset.
            let _ = reader.read_to_end(&mut bytes).await;
            answer = String::from_utf8_lossy(&bytes).into_owned();
        };
        tokio::select! {
            () = writing => {}
            () = within(Duration::from_secs(40), "it is closed", reading) => {}
        }
        answer
    };
    let others = async {
        for _ in 0..20 {
            rig.get("/v1/info").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (head, body, ()) = tokio::join!(trickle("GET /v1/info HTTP/1.1\r\nX:"), trickle(HEAD), others);
    assert!(!head.starts_with("HTTP/1.1 2"), "{head}");
    assert!(body.starts_with("HTTP/1.1 408 ") && body.contains("\"code\":\"body\""), "{body}");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(9), "{took:?}");
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_reader_that_stops_does_not_delay_other_clients() {
    // As many as there are streams, and none of them is read.
    const STREAMS: usize = 64;
    let rig = Rig::start().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = rig.connect().await;
        let head = request("GET", "/v1/events", ["Host: localhost"], "");
        stream.write_all(head.as_bytes()).await.expect("it reads");
        streams.push(stream);
    }
    let refused = async {
        loop {
            let mut stream = rig.connect().await;
            stream.write_all(request("GET", "/v1/events", ["Host: localhost"], "").as_bytes()).await.expect("it reads");
            let head = pulsegate_test_kit::http1::read_head(&mut stream).await.expect("an answer");
            if head.starts_with("HTTP/1.1 503 ") {
                return;
            }
        }
    };
    wait_for("one too many is refused", refused).await;
    let reply = rig.ask("GET", "/v1/events", &[], "").await;
    reply.refuses(503, "streams", &["64 streams", "/v1/connections"]);
    assert_eq!(reply.header("retry-after"), Some("5"));

    let mut neighbour = rig.proxy.websocket("/echo").await;
    let began = Instant::now();
    for _ in 0..300 {
        let mut session = rig.proxy.websocket("/echo").await;
        session.close(None).await.expect("it is open");
    }
    wait_for("an echo", echo(&mut neighbour, "still here".into())).await.expect("it lives");
    rig.get("/v1/connections?state=all&limit=10000").await;
    println!("300 sessions beside {STREAMS} readers that do not read: {:?}", began.elapsed());
    drop(streams);
    let status = async || rig.ask("HEAD", "/v1/events", &[], "").await.status;
    wait_until_async("a stream of events is accepted again", status, |status| *status == 200).await;
    wait_until("nothing is left", || rig.proxy.logged("admin.lost").len(), |lost| *lost == 0).await;
    rig.proxy.finish().await;
}
