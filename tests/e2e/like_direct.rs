//! An Express app answers through the proxy as it does directly: the same requests go both ways, and what comes back is
//! compared byte for byte, but for the differences that are listed here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frames::noise;
use crate::support::deadline::soon;
use crate::support::node::App;
use crate::support::proxy::{Config, Proxy};

/// Fields that are about one connection (RFC 9110 §7.6.1), and the time.
const MAY_DIFFER: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "date"];

/// One app that is asked directly, and another run of it that is asked through the proxy.
struct Pair {
    direct: App,
    _behind: App,
    proxy: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let direct = App::start("express", "whole.js", &[]).await;
        let behind = App::start("express", "whole.js", &[]).await;
        let proxy = Proxy::start(Config::to(&behind.url)).await;
        Self { direct, _behind: behind, proxy }
    }

    /// What comes of `request` directly, and through the proxy.
    async fn ask(&self, request: &Request) -> [Reply; 2] {
        let address = self.direct.url.strip_prefix("http://").expect("the app listens on TCP");
        let tcp = TcpStream::connect(address).await.expect("the app listens");
        let direct = soon("the app's answer", reply(tcp, &request.bytes)).await;
        let proxied = soon("the answer through the proxy", reply(self.proxy.tls().await, &request.bytes)).await;
        [direct, proxied]
    }

    /// As [`Self::ask`], when both are to be the same; returns it.
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

/// A request, as bytes. Its connection is for it alone.
struct Request {
    what: String,
    bytes: Vec<u8>,
}

impl Request {
    fn new(line: &str, fields: &[&str], body: &[u8]) -> Self {
        let mut head = format!("{line} HTTP/1.1\r\nHost: app.example\r\nConnection: close\r\n");
        for field in fields {
            write!(head, "{field}\r\n").expect("writing to a string");
        }
        if !body.is_empty() && !fields.iter().any(|field| field.starts_with("Transfer-Encoding")) {
            write!(head, "Content-Length: {}\r\n", body.len()).expect("writing to a string");
        }
        Self { what: format!("{line} {fields:?}"), bytes: [head.as_bytes(), b"\r\n", body].concat() }
    }

    fn get(path: &str, fields: &[&str]) -> Self {
        Self::new(&format!("GET {path}"), fields, &[])
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
    /// Those that must not differ.
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
    let mut trailers = Vec::new();
    let chunked = fields.get("transfer-encoding").is_some_and(|values| values[0].eq_ignore_ascii_case("chunked"));
    let body = if chunked {
        let mut body = Vec::new();
        loop {
            let size = std::str::from_utf8(until(&mut rest, b"\r\n")?).ok()?;
            let size = usize::from_str_radix(size, 16).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(rest.get(..size)?);
            rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
        }
        loop {
            match until(&mut rest, b"\r\n")? {
                [] => break,
                trailer => trailers.push(String::from_utf8_lossy(trailer).to_ascii_lowercase()),
            }
        }
        body
    } else {
        rest.to_vec()
    };
    Some(Reply { interim, status, fields, body, trailers })
}

/// What stands before the next `end`, which is taken as well.
fn until<'a>(rest: &mut &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = rest.windows(end.len()).position(|window| window == end)?;
    let taken = &rest[..at];
    *rest = &rest[at + end.len()..];
    Some(taken)
}

#[tokio::test]
async fn downloads_ranges_and_conditions_are_the_same() {
    let pair = Pair::start().await;
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

#[tokio::test]
async fn compressed_answers_are_the_same_bytes() {
    let pair = Pair::start().await;
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

#[tokio::test]
async fn a_session_lasts_and_its_cookie_is_secure() {
    let pair = Pair::start().await;
    pair.agree(&Request::get("/me", &[])).await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    let [direct, proxied] = pair.ask(&Request::new("POST /login", &[form], b"user=jo%C3%A9")).await;
    // The app knows that its client uses TLS: the one difference in an answer that the proxy makes by intent.
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
    let stranger = pair.agree(&Request::get("/me", &[&cookie])).await;
    assert_eq!(stranger.status, "HTTP/1.1 401 Unauthorized");
    pair.proxy.finish().await;
}

#[tokio::test]
async fn uploads_arrive_whole() {
    let pair = Pair::start().await;
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

#[tokio::test]
async fn the_corners_of_http_are_the_same() {
    let pair = Pair::start().await;
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
        ("GET //file/../file?a=1&a=2#", "404 Not Found"),
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

#[tokio::test]
async fn what_differs_is_what_is_documented() {
    let pair = Pair::start().await;
    // Early hints end at the proxy, as all interim answers but its own 100 do.
    let [direct, proxied] = pair.ask(&Request::get("/hints", &[])).await;
    assert_eq!((direct.interim, proxied.interim), (vec!["HTTP/1.1 103 Early Hints".to_owned()], Vec::new()));
    assert_eq!((direct.status, direct.body), (proxied.status, proxied.body));
    // Trailers are for clients that say so.
    let [direct, proxied] = pair.ask(&Request::get("/trailers", &[])).await;
    assert_eq!((direct.trailers.len(), proxied.trailers.len()), (1, 0));
    assert_eq!(direct.body, proxied.body);
    // The app hears that its client uses TLS.
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

#[tokio::test]
async fn an_app_that_trusts_its_proxy_learns_the_client_through_another_one() {
    let app = App::start("express", "whole.js", &[]).await;
    let claims =
        ["X-Forwarded-For: 6.6.6.6, 198.51.100.1", "X-Forwarded-Host: shop.example", "X-Request-Id: from-afar"];
    for (trusted, ip, hostname, logged) in [
        ("[\"127.0.0.0/8\"]", "198.51.100.1", "shop.example", "198.51.100.1"),
        ("[\"10.0.0.0/8\"]", "127.0.0.1", "app.example", "127.0.0.1:"),
    ] {
        let forwarded = format!("[forwarded]\ntrusted_proxies = {trusted}\nrfc7239 = true\n");
        let proxy = Proxy::start(Config::to(&app.url).with(&forwarded)).await;
        let request = Request::get("/who", &claims);
        let who = soon("an answer", reply(proxy.tls().await, &request.bytes)).await.json();
        assert_eq!((&who["ip"], &who["hostname"]), (&ip.into(), &hostname.into()), "{who}");
        assert_eq!(who["id"] == "from-afar", ip == "198.51.100.1", "{who}");
        assert_eq!(who["protocol"], "https");
        let line = proxy.line("an http.access", |line| line.json["message"] == "http.access").await.json;
        assert!(line["client.address"].as_str().is_some_and(|address| address.starts_with(logged)), "{line}");
        proxy.finish().await;
    }
}
