//! Prometheus itself, as Debian packages it, scrapes the proxy.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pulsegate_test_kit::client::{Neighbour, echo};
use pulsegate_test_kit::fake_app::{FakeApp, RequestHead, hold};
use pulsegate_test_kit::process::Process;
use pulsegate_test_kit::proxy::Proxy;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::metrics::scrape::{get, health, metrics, observed};
use crate::metrics::table::documented;

/// It starts, opens its database, and scrapes once a second; all of that on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running Prometheus.
pub(crate) struct Prometheus {
    process: Process,
    address: SocketAddr,
    /// Its configuration, rules and database.
    _dir: TempDir,
}

impl Prometheus {
    /// Starts it with one target.
    async fn scraping(target: SocketAddr) -> Self {
        Self::start(&format!("- targets: ['{target}']"), "").await
    }

    /// Starts it with these targets (items of `static_configs`), scraped every second, and these rules.
    pub(crate) async fn start(targets: &str, rules: &str) -> Self {
        let dir = TempDir::with_prefix("pulsegate-prometheus-").expect("make a temporary directory");
        let config = format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s\nrule_files: [rules.yaml]\n\
             scrape_configs:\n- job_name: pulsegate\n  static_configs:\n{}\n",
            targets.lines().fold(String::new(), |lines, line| lines + "  " + line + "\n")
        );
        let file = dir.path().join("prometheus.yml");
        fs::write(&file, config).expect("write its configuration");
        fs::write(dir.path().join("rules.yaml"), rules).expect("write its rules");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .arg("--log.format=json");
        let process = Process::start("prometheus", &mut command);
        let listening = process.line_within(LIMIT, "it listens", |line| line.json["msg"] == "Listening on").await;
        let address = listening.json["address"].as_str().and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in {}", listening.text));
        Self { process, address, _dir: dir }
    }

    /// Queries `query` until its one value is `wanted`.
    pub(crate) async fn answers(&self, query: &str, wanted: &str) {
        let path = format!("/api/v1/query?query={}", percent_encoded(query));
        self.until(&format!("{query} is {wanted}"), &path, |json| json["data"]["result"][0]["value"][1] == wanted)
            .await;
    }

    /// Requests `path` of its API until `wanted` accepts the answer, and returns it.
    pub(crate) async fn until(&self, what: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = get(self.address, path).await;
            let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            if wanted(&json) {
                return json;
            }
            let late = begun.elapsed() > LIMIT;
            assert!(!late, "not so: {what}; but {}; it wrote:\n{}", answer.body, self.process.transcript());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the series of the answer to `query` over the seconds from `start` to `end` (Unix time), one value a second;
    /// an error is a text.
    pub(crate) async fn range(&self, query: &str, start: f64, end: f64) -> Result<Vec<Value>, String> {
        let query = percent_encoded(query);
        let answer =
            get(self.address, &format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=1")).await;
        let json: Value = serde_json::from_str(&answer.body).expect("it answers in JSON");
        match json["data"]["result"].as_array() {
            Some(series) => Ok(series.clone()),
            None => Err(answer.body),
        }
    }

    /// Returns all series that match `selector`, as their labels.
    async fn series(&self, selector: &str) -> Vec<BTreeMap<String, String>> {
        let answer = get(self.address, &format!("/api/v1/series?match[]={}", percent_encoded(selector))).await;
        let mut json: Value = serde_json::from_str(&answer.body).expect("it answers in JSON");
        let series: Vec<_> = serde_json::from_value(json["data"].take()).expect("a list of labels");
        assert!(!series.is_empty(), "nothing matches {selector}");
        series
    }
}

pub(crate) fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| encoded + &format!("%{byte:02X}"))
}

#[tokio::test]
async fn a_prometheus_scrapes_it_and_answers_from_what_it_has_read() {
    let app = FakeApp::start(|_: RequestHead, stream: TcpStream| hold(stream)).await;
    let proxy = Proxy::start(observed(&app.url)).await;
    let _neighbours = [Neighbour::join(&proxy, "/echo").await, Neighbour::join(&proxy, "/echo").await];
    let mut websocket = proxy.websocket("/echo").await;
    echo(&mut websocket, Message::text("twelve bytes")).await.expect("it echoes");
    let prometheus = Prometheus::scraping(health(&proxy)).await;

    prometheus.answers("up", "1").await;
    prometheus.answers("pulsegate_websockets_active{route=\"/\"}", "3").await;
    prometheus.answers("sum(pulsegate_upgrades_total{outcome=\"opened\"})", "3").await;
    prometheus.answers("pulsegate_messages_total{direction=\"in\"}", "3").await;
    prometheus.answers("pulsegate_upgrade_duration_seconds_bucket{le=\"+Inf\"}", "3").await;
    prometheus.answers("pulsegate_build_info", "1").await;
    // No sample is lost on the way.
    let samples = metrics(&proxy).await.len();
    prometheus.answers("scrape_samples_scraped", &samples.to_string()).await;
    // As its parser reads them, they match deploy/METRICS.md.
    let series = prometheus.series("{__name__=~\"pulsegate_.+\"}").await;
    let documented = documented();
    for mut labels in series {
        let name = labels.remove("__name__").expect("every series has a name");
        let row = documented.iter().find(|row| row.is_of(&name)).unwrap_or_else(|| panic!("{name} is not documented"));
        labels.retain(|label, _| !["instance", "job"].contains(&&**label));
        row.assert_describes(&labels, &["/"]);
    }
    // A reader of OpenMetrics gets the types.
    let answer = get(prometheus.address, "/api/v1/metadata?metric=pulsegate_upgrades").await;
    assert!(answer.body.contains(r#""type":"counter""#), "{}", answer.body);
    proxy.finish().await;
}
