//! Requests for the metrics of a proxy, as a scraper makes them.

use std::net::SocketAddr;
use std::process::Stdio;

use pulsegate_test_kit::http1::Response;
use pulsegate_test_kit::proxy::{Config, Proxy};
use pulsegate_test_kit::wait::{wait_for, wait_until_async};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::PULSEGATE;
use crate::metrics::exposition::Exposition;
use crate::metrics::table::documented;

/// The media type that Prometheus accepts for `OpenMetrics`.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The text format that every scraper reads.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Returns a configuration for a proxy in front of the app at `url` whose health listener has a port of the system's
/// choice.
pub(crate) fn observed(url: &str) -> Config {
    Config::to(PULSEGATE, url).admin("health = \"127.0.0.1:0\"").admin("socket = \"off\"")
}

/// Returns the address of its metrics.
pub(crate) fn health(proxy: &Proxy) -> SocketAddr {
    let listening = proxy.logged("listening");
    let health = listening.first().and_then(|line| line["health"].as_str()?.parse().ok());
    health.unwrap_or_else(|| panic!("no health address in {listening:?}"))
}

/// Sends a GET of `target` on a connection of its own.
pub(crate) async fn get(address: SocketAddr, target: &str) -> Response {
    get_as(address, target, None).await
}

/// As [`get`], with an `Accept` field.
async fn get_as(address: SocketAddr, target: &str, accept: Option<&str>) -> Response {
    let accept = accept.map(|accept| format!("Accept: {accept}\r\n")).unwrap_or_default();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{accept}Connection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("the request is taken");
        Response::read(&mut stream).await.unwrap_or_else(|| panic!("no answer to GET {target}"))
    };
    wait_for("an answer", exchange).await
}

/// Returns all metrics, as text.
pub(crate) async fn text(proxy: &Proxy) -> String {
    let answer = get_as(health(proxy), "/metrics", Some("application/openmetrics-text")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(OPEN_METRICS)), "{}", answer.head);
    answer.body
}

/// Returns all metrics in the text format 0.0.4, requested by this `Accept` field.
async fn plain_text(proxy: &Proxy, accept: Option<&str>) -> String {
    let answer = get_as(health(proxy), "/metrics", accept).await;
    let types = (answer.header("content-type"), answer.header("vary"));
    assert_eq!((answer.status, types), (200, (Some(TEXT), Some("accept"))), "{}", answer.head);
    answer.body
}

/// Returns all metrics.
pub(crate) async fn metrics(proxy: &Proxy) -> Exposition {
    Exposition::read(&text(proxy).await)
}

/// Scrapes repeatedly until `is_wanted`.
pub(crate) async fn until(proxy: &Proxy, what: &str, is_wanted: impl Fn(&Exposition) -> bool) -> Exposition {
    let text = wait_until_async(what, async || text(proxy).await, |text| is_wanted(&Exposition::read(text))).await;
    Exposition::read(&text)
}

/// Fails unless deploy/METRICS.md has every family and label, every value is one of its set, and every route is one of
/// `routes`.
pub(crate) fn assert_as_documented(metrics: &Exposition, routes: &[&str]) {
    let documented = documented();
    for (name, family) in &metrics.families {
        for sample in &family.samples {
            let row = documented.iter().find(|row| row.is_of(&sample.name));
            let row = row.unwrap_or_else(|| panic!("{} is not in deploy/METRICS.md", sample.name));
            assert_eq!(row.name.trim_end_matches("_total"), name, "{sample:?}");
            assert_eq!(family.kind, row.kind, "{name}");
            row.assert_describes(&sample.labels, routes);
        }
    }
}

/// Fails unless `promtool` accepts the metrics as they are served, byte for byte.
pub(crate) async fn assert_promtool_agrees(proxy: &Proxy) {
    for accept in [None, Some("text/plain"), Some("text/plain;version=0.0.4"), Some("*/*")] {
        let text = plain_text(proxy, accept).await;
        assert_is_checked(&text).await;
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&text), samples(&self::text(proxy).await), "as many samples as in OpenMetrics");
    }
}

async fn assert_is_checked(text: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.kill_on_drop(true).spawn().unwrap_or_else(|error| {
        panic!("promtool does not start: {error}; ./tests/install installs it (apt-get install -y prometheus)")
    });
    let mut stdin = promtool.stdin.take().expect("stdin is piped");
    stdin.write_all(text.as_bytes()).await.expect("promtool reads");
    drop(stdin);
    let output = wait_for("promtool's judgement", promtool.wait_with_output()).await.expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}:\n{text}", String::from_utf8_lossy(&said));
}
