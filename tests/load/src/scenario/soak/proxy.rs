//! The proxy's own figures: the sessions of the admin API, and the metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::head::Head;

/// The timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Ended sessions by the labels `initiator`, `reason` and `code`.
pub(super) type Ends = BTreeMap<[String; 3], u64>;

/// The addresses of the proxy's admin API and metrics.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proxy {
    /// The admin API.
    pub(super) admin: SocketAddr,
    /// The port with `/metrics`.
    pub(super) health: SocketAddr,
}

impl Proxy {
    /// Returns the number of live sessions in the admin API.
    pub(super) async fn sessions(&self) -> Result<u64> {
        let body = get(self.admin, "/v1/connections?limit=1").await?;
        let list: Value = serde_json::from_str(&body).context("the list of sessions is not JSON")?;
        list["total"].as_u64().with_context(|| format!("the list of sessions has no total: {body}"))
    }

    /// Returns the current metrics.
    pub(super) async fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics(get(self.health, "/metrics").await?))
    }
}

/// The text of `/metrics`.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics(String);

impl Metrics {
    /// Returns the ended sessions, all routes together; only ends that have happened.
    pub(super) fn ends(&self) -> Ends {
        let mut ends = Ends::new();
        let happened = self.samples("pulsegate_websockets_closed_total").filter(|(_, value)| *value > 0.0);
        for (labels, value) in happened {
            let label = |name: &str| label(labels, name).unwrap_or_default().to_owned();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter of sessions")]
            let count = value as u64;
            *ends.entry([label("initiator"), label("reason"), label("code")]).or_default() += count;
        }
        ends
    }

    /// Returns the sum of a metric over all labels.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.samples(name).fold(0.0, |sum, (_, value)| sum + value)
    }

    /// Returns the samples of a metric: labels and value.
    fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }
}

/// Returns the value of a label. The requested values contain no quotes.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let work = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let (head, mut body) = Head::read(&mut stream).await?;
        stream.read_to_end(&mut body).await?;
        if head.status() != Some(200) || head.field("Transfer-Encoding").is_some() {
            bail!("expected 200 and a body of known length, not {}", head.start_line());
        }
        Ok(String::from_utf8(body)?)
    };
    let done = timeout(TIMEOUT, work).await.unwrap_or_else(|_| bail!("no answer within {TIMEOUT:?}"));
    done.with_context(|| format!("GET http://{address}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_summed_over_routes() {
        let metrics = Metrics(
            "# HELP pulsegate_websockets_closed_total x\n\
             pulsegate_websockets_closed_total{route=\"/\",initiator=\"client\",reason=\"normal\",code=\"1000\"} 2\n\
             pulsegate_websockets_closed_total{route=\"/a\",initiator=\"client\",reason=\"normal\",code=\"1000\"} 3\n\
             pulsegate_websockets_closed_total{route=\"/\",initiator=\"proxy\",reason=\"rate\",code=\"1008\"} 1\n\
             pulsegate_connections_active 7\n"
                .into(),
        );
        let key = |labels: [&str; 3]| labels.map(str::to_owned);
        let expected = [(key(["client", "normal", "1000"]), 5), (key(["proxy", "rate", "1008"]), 1)];
        assert_eq!(metrics.ends(), Ends::from(expected));
        assert!((metrics.sum("pulsegate_connections_active") - 7.0).abs() < f64::EPSILON);
    }
}
