//! Plain requests over HTTP/2.

use bytes::Bytes;
use http::{HeaderValue, Method};
use pulsegate_test_kit::fake_app::FakeApp;
use pulsegate_test_kit::http1::read_head;
use pulsegate_test_kit::http2::{Http2Client, Http2Response, request};
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use tokio::io::AsyncWriteExt;

use crate::PULSEGATE;

/// Answers with the head of the request that came in.
async fn mirror() -> FakeApp {
    FakeApp::start(|request, mut stream| async move {
        let body = request.head;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-App: yes\r\n\r\n{body}",
            body.len()
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

fn lines(answer: &Http2Response) -> Vec<String> {
    answer.body.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_app_gets_an_http_1_request_like_any_other() {
    let app = mirror().await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut get = request(Method::GET, "/path?query=1");
    for (name, value) in [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("x-forwarded-for", "6.6.6.6")] {
        get.headers_mut().append(name, HeaderValue::from_static(value));
    }
    let answer = client.ask(get).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-app"), Some("yes"));
    assert!(answer.headers.contains_key("date"), "{answer:?}");
    for hop in ["connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert!(!answer.headers.contains_key(hop), "{hop}: {answer:?}");
    }
    let lines = lines(&answer);
    assert_eq!(lines[0], "GET /path?query=1 HTTP/1.1");
    let has = |line: &str| lines.iter().filter(|found| found.eq_ignore_ascii_case(line)).count();
    for line in ["host: localhost", "cookie: a=1; b=2", "te: trailers", "x-forwarded-for: 127.0.0.1"] {
        assert_eq!(has(line), 1, "{line}: {lines:?}");
    }
    assert_eq!(has("x-forwarded-proto: https"), 1, "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with(':') || line.contains("6.6.6.6")), "{lines:?}");
    let line = proxy.line("its access line", |line| line.json["message"] == "http.access").await.json;
    assert_eq!(
        (&line["network.protocol.version"], &line["http.response.status_code"]),
        (&"2".into(), &200.into()),
        "{line}"
    );
    proxy.finish().await;
}

#[tokio::test]
async fn names_keep_their_case_over_http_1_behind_requests_of_http_2() {
    let app = FakeApp::start(|request, mut stream| async move {
        let mut next = Some(request.head);
        while let Some(head) = next {
            let answer = format!("HTTP/1.1 200 OK\r\nX-aPP: 1\r\nContent-Length: {}\r\n\r\n{head}", head.len());
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            next = read_head(&mut stream).await;
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut tls = proxy.tls().await;
    for _ in 0..2 {
        // Its connection to the app is idle when the other request comes.
        assert_eq!(client.get("/").await.header("x-app"), Some("1"));
        let answer = proxy.ask(&mut tls, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-cAsE: 1\r\n\r\n").await;
        assert!(answer.head.contains("X-aPP: 1\r\n") && answer.body.contains("X-cAsE: 1\r\n"), "{answer:?}");
    }
    proxy.finish().await;
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let app = FakeApp::start(|request, mut stream| async move {
        use tokio::io::AsyncReadExt;
        let chunked = request.header("transfer-encoding") == Some("chunked");
        let mut body = Vec::new();
        // Two chunks of 100,000 bytes, the last one, and the trailer.
        while !body.ends_with(b"x-sum: 7\r\n\r\n") {
            assert!(stream.read_buf(&mut body).await.expect("the body comes") > 0, "it broke off");
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n\
             {:x}\r\n{}\r\n0\r\nX-Check: ok-{chunked}\r\n\r\n",
            300_000,
            "y".repeat(300_000)
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut post = request(Method::POST, "/upload");
    post.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    let (response, mut upload) = client.send(post, false).await;
    upload.send_data(Bytes::from(vec![b'x'; 200_000]), false).expect("open");
    let trailers = [("x-sum".parse().expect("a name"), HeaderValue::from_static("7"))].into_iter().collect();
    upload.send_trailers(trailers).expect("open");
    let answer = Http2Response::of(wait_for("an answer", response).await.expect("an answer")).await;
    assert_eq!(answer.body.len(), 300_000);
    assert_eq!(answer.trailers.expect("trailers")["x-check"], "ok-true");
    proxy.finish().await;
}

#[tokio::test]
async fn a_head_has_a_length_and_no_body() {
    let app = FakeApp::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let answer = client.ask(request(Method::HEAD, "/")).await;
    assert_eq!((answer.status, answer.header("content-length"), &*answer.body), (200, Some("5"), ""));
    proxy.finish().await;
}

#[tokio::test]
async fn a_request_that_waits_for_100_is_told_to_go_on() {
    let app = FakeApp::start(|request, mut stream| async move {
        use tokio::io::AsyncReadExt;
        assert_eq!(request.header("expect"), None);
        let mut body = [0; 4];
        stream.read_exact(&mut body).await.expect("the body comes");
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let mut put = request(Method::PUT, "/");
    put.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    put.headers_mut().insert("content-length", HeaderValue::from_static("4"));
    let (mut response, mut upload) = client.send(put, false).await;
    let interim = wait_for("a 100", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    assert_eq!(interim.expect("one comes").expect("a sound one").status(), 100);
    upload.send_data(Bytes::from_static(b"body"), true).expect("open");
    assert_eq!(wait_for("an answer", response).await.expect("an answer").status(), 204);
    proxy.finish().await;
}

#[tokio::test]
async fn a_client_that_takes_its_request_back_frees_the_app() {
    let (tells, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = FakeApp::start(move |_, stream| {
        let tells = tells.clone();
        async move {
            let _ = tells.send("asked");
            pulsegate_test_kit::fake_app::hold(stream).await;
            let _ = tells.send("closed");
        }
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let (response, mut stream) = client.send(request(Method::GET, "/slow"), true).await;
    assert_eq!(wait_for("the app is asked", told.recv()).await, Some("asked"));
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    assert_eq!(wait_for("the app's connection closes", told.recv()).await, Some("closed"));
    let line = proxy.line("its access line", |line| line.json["message"] == "http.access").await.json;
    assert_eq!(line["http.response.status_code"], 499, "{line}");
    proxy.finish().await;
}

#[tokio::test]
async fn an_app_that_breaks_off_is_told_by_a_reset() {
    let app = FakeApp::start(|_, mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    let (response, _) = client.send(request(Method::GET, "/"), true).await;
    let mut body = wait_for("an answer", response).await.expect("an answer").into_body();
    let error = loop {
        match wait_for("the body", body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("half a body passed for a whole one"),
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
    client.ping().await;
    proxy.finish().await;
}

#[tokio::test]
async fn an_answer_that_is_left_where_it_is_is_cancelled() {
    let app = FakeApp::start(|_, mut stream| async move {
        let body = "z".repeat(200_000);
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        pulsegate_test_kit::fake_app::hold(stream).await;
    })
    .await;
    // Which heartbeat WebSockets have makes no difference.
    let limits = "[limits]\nwrite_stall = \"1500ms\"\n[heartbeat]\nmode = \"off\"\n";
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(limits)).await;
    let mut client = Http2Client::connect_as(&proxy, h2::client::Builder::new().initial_window_size(16 * 1024)).await;
    let (response, _) = client.send(request(Method::GET, "/"), true).await;
    let mut body = wait_for("an answer", response).await.expect("an answer").into_body();
    let mut came = 0;
    let error = loop {
        match wait_for("the body", body.data()).await {
            // Taken, and the window left shut.
            Some(Ok(data)) => came += data.len(),
            Some(Err(error)) => break error,
            None => panic!("{came} bytes passed for the whole"),
        }
    };
    assert_eq!((came, error.reason()), (16 * 1024, Some(h2::Reason::CANCEL)));
    client.ping().await;
    proxy.finish().await;
}

#[tokio::test]
async fn a_refusal_overtakes_its_upload() {
    let app = FakeApp::start(|_, mut stream| async move {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nConnection: close\r\nContent-Length: 12\r\n\r\nwho are you?";
        let _ = stream.write_all(refusal.as_bytes()).await;
        // It has not read the body, which makes its close a reset.
    })
    .await;
    let proxy = Proxy::start(Config::to(PULSEGATE, &app.url)).await;
    let mut client = Http2Client::connect(&proxy).await;
    for round in 0..60 {
        let size = [70_000, 200_000, 2_000_000][round % 3];
        let (response, mut upload) = client.send(request(Method::POST, "/upload"), false).await;
        // The stream may have ended already.
        let _ = upload.send_data(Bytes::from(vec![b'y'; size]), true);
        let response = wait_for("an answer", response).await.expect("an answer, and no reset");
        let answer = Http2Response::of(response).await;
        assert_eq!((answer.status, &*answer.body), (401, "who are you?"), "round {round}, {size} bytes");
    }
    client.ping().await;
    proxy.finish().await;
}
