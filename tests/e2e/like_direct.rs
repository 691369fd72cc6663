//! An Express app answers through the proxy as it does directly: the same requests go both ways, and the answers are
//! compared byte for byte, but for the differences that are listed here. The proxy is used over HTTP/1.1 and HTTP/2.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::poll_fn;

use bytes::Bytes;
use h2::SendStream;
use http::{HeaderMap, StatusCode};
use pulsegate_test_kit::node::NodeApp;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::wait_for;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::PULSEGATE;
use crate::e2e::frames::noise;

/// Fields of one connection (RFC 9110 §7.6.1), and the time.
const MAY_DIFFER: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "date"];

/// The protocol towards the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Via {
    Http1,
    Http2,
}

/// Every comparison, once for each version.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod http1 {
            $(#[tokio::test] async fn $name() { super::$name(super::Via::Http1).await; })+
        }
        mod http2 {
            $(#[tokio::test] async fn $name() { super::$name(super::Via::Http2).await; })+
        }
    };
}

both!(
    downloads_ranges_and_conditions_are_the_same,
    compressed_answers_are_the_same_bytes,
    a_session_lasts_and_its_cookie_is_secure,
    uploads_arrive_whole,
    the_corners_of_http_are_the_same,
    what_differs_is_what_is_documented,
    an_app_that_trusts_its_proxy_gets_the_client_through_another_one,
);

/// One app that gets requests directly, and another run of it that gets them through the proxy.
struct Pair {
    via: Via,
    direct: NodeApp,
    _behind: NodeApp,
    proxy: Proxy,
}

impl Pair {
    async fn start(via: Via) -> Self {
        let direct = NodeApp::start("express", "whole.js", &[]).await;
        let behind = NodeApp::start("express", "whole.js", &[]).await;
        let proxy = Proxy::start(Config::to(PULSEGATE, &behind.url)).await;
        Self { via, direct, _behind: behind, proxy }
    }

    /// Returns the answers to `request`, directly and through the proxy.
    async fn ask(&self, request: &Request) -> [Reply; 2] {
        let address = self.direct.url.strip_prefix("http://").expect("the app listens on TCP");
        let tcp = TcpStream::connect(address).await.expect("the app listens");
        let direct = wait_for("the app's answer", reply(tcp, &request.bytes())).await;
        [direct, self.via.ask(&self.proxy, request).await]
    }

    /// As [`Self::ask`], when both must be the same; returns that answer.
    async fn agree(&self, request: &Request) -> Reply {
        let [direct, proxied] = self.ask(request).await;
        let what = &request.what;
        assert_eq!(proxied.status, direct.status, "{what}: {proxied:?}");
        assert_eq!(proxied.fields(), direct.fields(), "{what}");
        assert_eq!(proxied.trailers, direct.trailers, "{what}");
        let same = proxied.body == direct.body;
        assert!(same, "{what}: {} bytes instead of {}", proxied.body.len(), direct.body.len());
        direct
    }
}

impl Via {
    async fn ask(self, proxy: &Proxy, request: &Request) -> Reply {
        let answer = async {
            match self {
                Self::Http1 => reply(proxy.tls().await, &request.bytes()).await,
                Self::Http2 => reply_by_http2(proxy, request).await,
            }
        };
        wait_for("the answer through the proxy", answer).await
    }
}

/// A request on a connection of its own.
struct Request {
    what: String,
    line: String,
    fields: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn new(line: &str, fields: &[&str], body: &[u8]) -> Self {
        let what = format!("{line} {fields:?}");
        Self {
            what,
            line: line.into(),
            fields: fields.iter().map(|field| (*field).into()).collect(),
            body: body.into(),
        }
    }

    fn get(path: &str, fields: &[&str]) -> Self {
        Self::new(&format!("GET {path}"), fields, &[])
    }

    fn is_chunked(&self) -> bool {
        self.fields.iter().any(|field| field.starts_with("Transfer-Encoding"))
    }

    /// Returns the request as HTTP/1.1 encodes it.
    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n", self.line);
        for field in &self.fields {
            write!(head, "{field}\r\n").expect("writing to a string");
        }
        if !self.body.is_empty() && !self.is_chunked() {
            write!(head, "Content-Length: {}\r\n", self.body.len()).expect("writing to a string");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// Returns the request as HTTP/2 encodes it: the head, the body, and its trailers.
    fn streamed(&self) -> (http::Request<()>, Vec<u8>, HeaderMap) {
        let (method, target) = self.line.split_once(' ').expect("a method and a target");
        // A fragment never leaves a client of HTTP/2.
        let target = target.split('#').next().expect("the first part");
        let mut request = http::Request::builder().method(method).uri(format!("https://app.example{target}"));
        for field in &self.fields {
            let (name, value) = field.split_once(": ").expect("a field");
            if !["Transfer-Encoding", "Connection"].contains(&name) {
                request = request.header(name, value);
            }
        }
        let (mut body, mut trailers) = (self.body.clone(), HeaderMap::new());
        if self.is_chunked() {
            let (whole, lines) = unchunked(&mut &*self.body).expect("a chunked body");
            for line in lines {
                let (name, value) = line.split_once(": ").expect("a field");
                let name = http::HeaderName::try_from(name).expect("a name");
                trailers.insert(name, value.parse().expect("a value"));
            }
            body = whole;
        } else if !body.is_empty() {
            request = request.header("content-length", body.len());
        }
        (request.body(()).expect("a sound request"), body, trailers)
    }
}

/// A whole answer, its transfer coding undone.
#[derive(Debug)]
struct Reply {
    /// Status lines of interim answers.
    interim: Vec<String>,
    status: String,
    fields: BTreeMap<String, Vec<String>>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

impl Reply {
    /// Returns the fields that must not differ.
    fn fields(&self) -> BTreeMap<&str, &[String]> {
        let fields = self.fields.iter().filter(|(name, _)| !MAY_DIFFER.contains(&&***name));
        fields.map(|(name, values)| (&**name, &**values)).collect()
    }

    fn field(&self, name: &str) -> &str {
        match self.fields.get(name).map(Vec::as_slice) {
            Some([value]) => value,
            other => panic!("{name} is {other:?} in {self:?}"),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends `request` on a connection of HTTP/2 to `proxy`, and reads the whole answer.
async fn reply_by_http2(proxy: &Proxy, request: &Request) -> Reply {
    let name = ServerName::try_from("localhost").expect("a valid name");
    let handshake = TlsConnector::from(proxy.pki.client_of("h2")).connect(name, proxy.tcp().await);
    let tls = handshake.await.expect("the proxy's certificate is trusted");
    let (sender, connection) = h2::client::handshake(tls).await.expect("the preface goes out");
    let driver = tokio::spawn(connection);
    let mut sender = sender.ready().await.expect("the connection lives");
    let (head, body, trailers) = request.streamed();
    let ends = body.is_empty() && trailers.is_empty();
    let (mut response, stream) = sender.send_request(head, ends).expect("a sound request");
    let receive = async {
        let mut interim = Vec::new();
        while let Some(answer) = poll_fn(|cx| response.poll_informational(cx)).await {
            interim.push(status_line(answer.expect("an interim answer").status()));
        }
        let (head, mut stream) = response.await.expect("an answer").into_parts();
        let mut body = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data.expect("the body comes in whole");
            stream.flow_control().release_capacity(data.len()).expect("it was taken");
            body.extend_from_slice(&data);
        }
        let trailers = stream.trailers().await.expect("trailers, or none").unwrap_or_default();
        let trailers = lines(&trailers).map(|(name, value)| format!("{name}: {value}").to_ascii_lowercase()).collect();
        let mut fields = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in lines(&head.headers) {
            fields.entry(name).or_default().push(value);
        }
        Reply { interim, status: status_line(head.status), fields, body, trailers }
    };
    let send = async {
        if !ends {
            // The app may answer before it has read everything.
            let _ = upload(stream, body.into(), trailers).await;
        }
    };
    let (reply, ()) = tokio::join!(receive, send);
    driver.abort();
    reply
}

async fn upload(mut stream: SendStream<Bytes>, mut body: Bytes, trailers: HeaderMap) -> Option<()> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await?.ok()?;
        stream.send_data(body.split_to(room.min(body.len())), body.is_empty() && trailers.is_empty()).ok()?;
    }
    if trailers.is_empty() { Some(()) } else { stream.send_trailers(trailers).ok() }
}

/// Returns the status line of HTTP/1.1.
fn status_line(status: StatusCode) -> String {
    format!("HTTP/1.1 {} {}", status.as_u16(), status.canonical_reason().expect("a usual status"))
}

fn lines(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    let text = |value: &http::HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
    headers.iter().map(move |(name, value)| (name.as_str().to_owned(), text(value)))
}

/// Sends `request` and reads to the end of the connection.
async fn reply(stream: impl AsyncRead + AsyncWrite, request: &[u8]) -> Reply {
    let (mut reads, mut writes) = tokio::io::split(stream);
    let mut bytes = Vec::new();
    let send = async {
        // The app may answer, and close, before it has read everything.
        let _ = writes.write_all(request).await;
        let _ = writes.flush().await;
    };
    let ((), ended) = tokio::join!(send, reads.read_to_end(&mut bytes));
    let seen = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]).into_owned();
    ended.unwrap_or_else(|error| panic!("{error} after {seen:?}"));
    parse(&bytes).unwrap_or_else(|| panic!("no answer: {seen:?}"))
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let mut rest = bytes;
    let mut interim = Vec::new();
    let (status, lines) = loop {
        // Field values may be Latin-1, so each byte is a character here.
        let head: String = until(&mut rest, b"\r\n\r\n")?.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = head.split("\r\n").map(str::to_owned);
        let status = lines.next()?;
        if !status.starts_with("HTTP/1.1 1") {
            break (status, lines.collect::<Vec<_>>());
        }
        interim.push(status);
    };
    let mut fields = BTreeMap::<String, Vec<String>>::new();
    for line in &lines {
        let (name, value) = line.split_once(':')?;
        fields.entry(name.to_ascii_lowercase()).or_default().push(value.trim().to_owned());
    }
    let chunked = fields.get("transfer-encoding").is_some_and(|values| values[0].eq_ignore_ascii_case("chunked"));
    let (body, trailers) = if chunked { unchunked(&mut rest)? } else { (rest.to_vec(), Vec::new()) };
    Some(Reply { interim, status, fields, body, trailers })
}

/// Returns a body without its transfer coding, and its trailers in lower case.
fn unchunked(rest: &mut &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    loop {
        let size = std::str::from_utf8(until(rest, b"\r\n")?).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            break;
        }
        body.extend_from_slice(rest.get(..size)?);
        *rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        match until(rest, b"\r\n")? {
            [] => return Some((body, trailers)),
            trailer => trailers.push(String::from_utf8_lossy(trailer).to_ascii_lowercase()),
        }
    }
}

/// Returns the bytes before the next `end`, and consumes both.
fn until<'a>(rest: &mut &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = rest.windows(end.len()).position(|window| window == end)?;
    let taken = &rest[..at];
    *rest = &rest[at + end.len()..];
    Some(taken)
}

async fn downloads_ranges_and_conditions_are_the_same(via: Via) {
    let pair = Pair::start(via).await;
    let whole = pair.agree(&Request::get("/file", &[])).await;
    assert_eq!(whole.status, "HTTP/1.1 200 OK");
    let (etag, modified) = (whole.field("etag"), whole.field("last-modified"));
    for (fields, status) in [
        (vec!["Range: bytes=0-99".to_owned()], "206 Partial Content"),
        (vec!["Range: bytes=-10".to_owned()], "206 Partial Content"),
        (vec!["Range: bytes=100-".to_owned(), format!("If-Range: {etag}")], "206 Partial Content"),
        (vec!["Range: bytes=100-".to_owned(), "If-Range: \"other\"".to_owned()], "200 OK"),
        (vec!["Range: bytes=0-1,5-6".to_owned()], "200 OK"),
        (vec!["Range: bytes=99999999-".to_owned()], "416 Range Not Satisfiable"),
        (vec![format!("If-None-Match: {etag}")], "304 Not Modified"),
        (vec![format!("If-Modified-Since: {modified}")], "304 Not Modified"),
        (vec!["If-Match: \"other\"".to_owned()], "412 Precondition Failed"),
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let reply = pair.agree(&Request::get("/file", &fields)).await;
        assert_eq!(reply.status, format!("HTTP/1.1 {status}"), "{fields:?}");
    }
    pair.agree(&Request::get("/download", &[])).await;
    let large = pair.agree(&Request::get("/large", &[])).await;
    assert_eq!(large.body.len(), 8 << 20);
    pair.proxy.finish().await;
}

async fn compressed_answers_are_the_same_bytes(via: Via) {
    let pair = Pair::start(via).await;
    for path in ["/text", "/file", "/large", "/events"] {
        for coding in ["gzip", "br", "deflate", "identity", "gzip;q=0.5, br;q=0.1", "*"] {
            pair.agree(&Request::get(path, &[&format!("Accept-Encoding: {coding}")])).await;
        }
    }
    let gzip = pair.agree(&Request::get("/text", &["Accept-Encoding: gzip"])).await;
    assert_eq!(gzip.field("content-encoding"), "gzip");
    assert!(gzip.body.len() < 1_000, "{} bytes are not compressed", gzip.body.len());
    pair.proxy.finish().await;
}

async fn a_session_lasts_and_its_cookie_is_secure(via: Via) {
    let pair = Pair::start(via).await;
    pair.agree(&Request::get("/me", &[])).await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    let [direct, proxied] = pair.ask(&Request::new("POST /login", &[form], b"user=jo%C3%A9")).await;
    // The app receives the fact that its client uses TLS: the one difference that the proxy makes by intent.
    assert_eq!(proxied.status, "HTTP/1.1 303 See Other");
    assert_eq!(proxied.field("location"), direct.field("location"));
    let cookie = direct.field("set-cookie");
    assert_eq!(proxied.field("set-cookie"), cookie.replace("HttpOnly;", "HttpOnly; Secure;"));
    let cookie = format!("Cookie: {}", cookie.split(';').next().expect("name and value"));
    for visit in 1..=3 {
        let [direct, proxied] = pair.ask(&Request::get("/me", &[&cookie])).await;
        assert_eq!(proxied.json(), direct.json());
        assert_eq!(proxied.json()["visits"], visit, "{proxied:?}");
        assert_eq!(proxied.json()["user"], "joé");
    }
    let gone = pair.agree(&Request::new("POST /logout", &[&cookie], &[])).await;
    assert_eq!(gone.status, "HTTP/1.1 204 No Content");
    let anonymous = pair.agree(&Request::get("/me", &[&cookie])).await;
    assert_eq!(anonymous.status, "HTTP/1.1 401 Unauthorized");
    pair.proxy.finish().await;
}

async fn uploads_arrive_whole(via: Via) {
    let pair = Pair::start(via).await;
    let part = |head: &str, content: &[u8]| {
        [format!("--edge\r\nContent-Disposition: form-data; {head}\r\n\r\n").as_bytes(), content, b"\r\n"].concat()
    };
    let file = "name=\"photo\"; filename=\"sea.jpg\"\r\nContent-Type: image/jpeg";
    let form =
        |size| [part("name=\"title\"", "Übersee".as_bytes()), part(file, &noise(size)), b"--edge--\r\n".to_vec()];
    let multipart = "Content-Type: multipart/form-data; boundary=edge";
    let reply = pair.agree(&Request::new("POST /upload", &[multipart], &form(3 << 20).concat())).await;
    assert_eq!(reply.json()["files"][0]["size"], 3 << 20, "{reply:?}");
    assert_eq!(reply.json()["fields"]["title"], "Übersee");
    let too_large = pair.agree(&Request::new("POST /upload", &[multipart], &form(9 << 20).concat())).await;
    assert_eq!(too_large.status, "HTTP/1.1 500 Internal Server Error", "multer's own refusal");
    let broken = part("name=\"half\"; filename=\"a\"", b"no end");
    pair.agree(&Request::new("POST /upload", &[multipart], &broken)).await;

    let chunked = "Transfer-Encoding: chunked";
    let body = "5\r\nfirst\r\n6\r\nsecond\r\n0\r\nX-Sum: 11\r\n\r\n";
    let reply = pair.agree(&Request::new("PUT /count", &[chunked, "Trailer: X-Sum"], body.as_bytes())).await;
    assert_eq!(reply.json()["trailers"]["x-sum"], "11", "{reply:?}");

    let json = "Content-Type: application/json";
    let large = format!("\"{}\"", "x".repeat(2_000));
    for (body, status) in
        [("{\"a\":[1,2,\"ü\"]}", "200 OK"), ("{\"a\":", "400 Bad Request"), (&large, "413 Payload Too Large")]
    {
        let reply = pair.agree(&Request::new("POST /json", &[json], body.as_bytes())).await;
        assert_eq!(reply.status, format!("HTTP/1.1 {status}"));
    }
    let expecting = Request::new("POST /json", &[json, "Expect: 100-continue"], b"{}");
    let reply = pair.agree(&expecting).await;
    assert_eq!(reply.interim, ["HTTP/1.1 100 Continue"]);
    pair.proxy.finish().await;
}

async fn the_corners_of_http_are_the_same(via: Via) {
    let pair = Pair::start(via).await;
    for (line, status) in [
        ("GET /empty", "204 No Content"),
        ("HEAD /text", "200 OK"),
        ("HEAD /file", "200 OK"),
        ("HEAD /large", "200 OK"),
        ("OPTIONS /file", "200 OK"),
        ("DELETE /file", "404 Not Found"),
        ("PROPFIND /file", "404 Not Found"),
        ("GET /nowhere?q=%22%3Cb%3E", "404 Not Found"),
        ("GET /%", "404 Not Found"),
        ("GET //file/../file?a=1&a=2", "404 Not Found"),
        ("GET /broken", "500 Internal Server Error"),
        ("GET /cached", "200 OK"),
        ("GET /cookies", "200 OK"),
        ("GET /latin1", "200 OK"),
        ("GET /events", "200 OK"),
    ] {
        let reply = pair.agree(&Request::new(line, &["Accept: text/html"], &[])).await;
        assert_eq!(reply.status, format!("HTTP/1.1 {status}"), "{line}");
    }
    let cached = pair.agree(&Request::get("/cached", &["If-None-Match: W/\"v0\", \"v1\""])).await;
    assert_eq!(cached.status, "HTTP/1.1 304 Not Modified");
    let summed = pair.agree(&Request::get("/trailers", &["TE: trailers", "Connection: TE"])).await;
    assert!(matches!(&*summed.trailers, [sum] if sum.starts_with("x-sum: ")), "{summed:?}");
    pair.proxy.finish().await;
}

async fn what_differs_is_what_is_documented(via: Via) {
    let pair = Pair::start(via).await;
    // Early hints, as all interim answers but the proxy's own 100, end at the proxy with HTTP/1.1.
    let [direct, proxied] = pair.ask(&Request::get("/hints", &[])).await;
    let hints = vec!["HTTP/1.1 103 Early Hints".to_owned()];
    let heard = if via == Via::Http2 { hints.clone() } else { Vec::new() };
    assert_eq!((direct.interim, proxied.interim), (hints, heard));
    assert_eq!((direct.status, direct.body), (proxied.status, proxied.body));
    // With HTTP/1.1, trailers are for clients that announce support for them.
    let [direct, proxied] = pair.ask(&Request::get("/trailers", &[])).await;
    assert_eq!((direct.trailers.len(), proxied.trailers.len()), (1, usize::from(via == Via::Http2)));
    assert_eq!(direct.body, proxied.body);
    // The app receives the fact that its client uses TLS.
    let [direct, proxied] = pair.ask(&Request::get("/away", &[])).await;
    assert_eq!(direct.field("location"), "http://app.example/who");
    assert_eq!(proxied.field("location"), "https://app.example/who");
    let [direct, proxied] = pair.ask(&Request::get("/who", &[])).await.map(|reply| reply.json());
    assert_eq!((&direct["protocol"], &proxied["protocol"]), (&"http".into(), &"https".into()));
    assert_eq!((&direct["secure"], &proxied["secure"]), (&false.into(), &true.into()));
    for same in ["hostname", "host", "ip"] {
        assert_eq!(direct[same], proxied[same], "{same}");
    }
    pair.proxy.finish().await;
}

async fn an_app_that_trusts_its_proxy_gets_the_client_through_another_one(via: Via) {
    let app = NodeApp::start("express", "whole.js", &[]).await;
    let claims =
        ["X-Forwarded-For: 6.6.6.6, 198.51.100.1", "X-Forwarded-Host: shop.example", "X-Request-Id: from-afar"];
    for (trusted, ip, hostname, logged) in [
        ("[\"127.0.0.0/8\"]", "198.51.100.1", "shop.example", "198.51.100.1"),
        ("[\"10.0.0.0/8\"]", "127.0.0.1", "app.example", "127.0.0.1"),
    ] {
        let forwarded = format!("[forwarded]\ntrusted_proxies = {trusted}\nrfc7239 = true\n");
        let proxy = Proxy::start(Config::to(PULSEGATE, &app.url).with(&forwarded)).await;
        let request = Request::get("/who", &claims);
        let who = via.ask(&proxy, &request).await.json();
        assert_eq!((&who["ip"], &who["hostname"]), (&ip.into(), &hostname.into()), "{who}");
        assert_eq!(who["id"] == "from-afar", ip == "198.51.100.1", "{who}");
        assert_eq!(who["protocol"], "https");
        let line = proxy.line("an http.access", |line| line.json["message"] == "http.access").await.json;
        assert_eq!(line["client.address"], logged, "{line}");
        proxy.finish().await;
    }
}
