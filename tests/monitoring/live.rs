//! A Prometheus with the rules scrapes proxies through a run with events of every kind. Alerts fire, and every query of the
//! dashboard is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::metrics::prometheus::{Prometheus, percent_encoded};
use crate::monitoring::dashboard::{ALL, Panel, Query, Selection, panels, rows};
use crate::monitoring::pods::{Life, Pod, app, crowd, hanging_app};
use crate::monitoring::rules::{alerts, read};

const SHOP: &str = "shop/express-app";
const IDLE: &str = "shop/idle";

/// The alerts that the run brings about; they fire after [`FOR`].
const FIRING: [&str; 7] = [
    "PulsegateAppDropsSessions",
    "PulsegateAppErrors",
    "PulsegateAppUnresponsive",
    "PulsegateConnectionsRefused",
    "PulsegateDrainUnfinished",
    "PulsegateNotReady",
    "PulsegateReloadRefused",
];
/// Alerts whose condition may be met for a while: where a scrape is late, where many turns fit into [`RANGE`], and where the
/// machine stalls for a second.
const UNSTEADY: [&str; 4] = ["PulsegateAbsent", "PulsegateDown", "PulsegateSlowReaders", "PulsegateAppSlow"];
/// Replaces the time for which a condition of [`FIRING`] must hold.
const FOR: &str = "for: 3s";
/// Replaces the ranges of minutes.
const RANGE: &str = "[30s]";

/// A turn of events follows each scrape, so that the load is the same on a fast machine. It takes this many to show them.
const TURNS: u32 = 20;
const TURN_OF_THE_DRAIN: u32 = 5;
const TURN_OF_THE_RELOAD: u32 = 10;
/// The limit of all turns on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// The panels that show zeros, with the event that this run does not have.
const ZERO: [&str; 3] = [
    // No client breaks HTTP/2.
    "HTTP/2 connections ended by reason",
    // There is no authority.
    "Certificate orders by result",
    // No process starts again under its address.
    "Restarts",
];

/// Returns the rules with short times.
fn quick_rules() -> String {
    let mut rules = read("rules.yaml");
    for range in ["[3m]", "[5m]", "[10m]"] {
        assert!(rules.contains(range), "no rule looks back {range}");
        rules = rules.replace(range, RANGE);
    }
    for alert in alerts().into_iter().filter(|alert| FIRING.contains(&&*alert.name)) {
        let text = ["[3m]", "[5m]", "[10m]"].iter().fold(alert.text.clone(), |text, range| text.replace(range, RANGE));
        let (before, rest) = text.split_once("for: ").expect("every alert waits");
        let (_, after) = rest.split_once('\n').expect("more lines");
        assert!(rules.contains(&text), "{text}");
        rules = rules.replace(&text, &format!("{before}{FOR}\n{after}"));
    }
    rules
}

/// Returns the time of the first scrape of a proxy that is later than `last` (Unix time).
async fn scrape_after(prometheus: &Prometheus, last: f64) -> f64 {
    let of = |answer: &Value| answer["data"]["result"][0]["value"][1].as_str().and_then(|time| time.parse().ok());
    let query = instant("timestamp(up{pod=\"express-app-a\"})");
    let answer = prometheus.until("a scrape", &query, |answer| of(answer).is_some_and(|time: f64| time > last)).await;
    of(&answer).expect("it was there")
}

fn is_success(answer: &Value) -> bool {
    answer["status"] == "success"
}

/// Returns the names of alerts in the answer to a query of `ALERTS`.
fn names(answer: &Value) -> BTreeSet<String> {
    let all = answer["data"]["result"].as_array();
    let all = all.into_iter().flatten();
    all.filter_map(|alert| alert["metric"]["alertname"].as_str().map(str::to_owned)).collect()
}

fn instant(query: &str) -> String {
    format!("/api/v1/query?query={}", percent_encoded(query))
}

#[tokio::test]
async fn a_prometheus_answers_every_query_and_fires_the_alerts_of_what_happens() {
    let (app, (_hanging, hanging_url)) = (app().await, hanging_app().await);
    let a = Pod::serving(("express-app-a", SHOP), &app).await;
    let b = Pod::serving(("express-app-b", SHOP), &app).await;
    let c = Pod::start(("express-app-c", SHOP), &hanging_url, |config| {
        let config = config.upstream("interval = \"300ms\"\ntimeout = \"400ms\"\ngive_up = \"5m\"");
        config.with("[limits]\nconnections = 3")
    })
    .await;
    let idle = Pod::start(("idle-a", IDLE), &app.url, |config| config).await;
    let targets: String = [&a, &b, &c, &idle].map(Pod::target).concat();
    let (mut life, bystanders) = (Life::of(&a).await, Life::of(&b).await);
    let prometheus = Prometheus::start(&targets, &quick_rules()).await;

    // At rest, nothing fires; the app of c has never answered.
    prometheus.answers("count(rate(pulsegate_heartbeat_pongs_total[4s]) > 0)", "2").await;
    let mut last = scrape_after(&prometheus, 0.0).await;
    let begun = last;
    let unknown = "count(ALERTS{alertstate=\"firing\", pod!=\"express-app-c\"}) or vector(0)";
    prometheus.answers(unknown, "0").await;

    let deadline = Instant::now() + LIMIT;
    for turn in 0.. {
        tokio::join!(life.turn(), crowd(&c));
        match turn {
            TURN_OF_THE_DRAIN => b.drains().await,
            TURN_OF_THE_RELOAD => a.breaks_its_configuration(),
            _ => {}
        }
        last = scrape_after(&prometheus, last).await;
        let ever = "count by (alertname) (max_over_time(ALERTS{alertstate=\"firing\"}[5m]))";
        let fired = names(&prometheus.until("the alerts", &instant(ever), is_success).await);
        let missing: Vec<_> = FIRING.iter().filter(|name| !fired.contains(**name)).collect();
        if turn >= TURNS && missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "in {LIMIT:?} and {turn} turns {missing:?} have not fired; {fired:?} have");
    }
    let texts = prometheus.until("alerts have texts", "/api/v1/alerts", is_success).await;
    assert_texts_are_whole(&texts);
    assert_nothing_else_is_pending(&prometheus).await;
    let rules = prometheus.until("the rules", "/api/v1/rules", is_success).await;
    for rule in rules["data"]["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
    {
        assert_eq!((&rule["health"], &rule["lastError"]), (&json!("ok"), &Value::Null), "{rule}");
    }

    assert_every_panel_has_data(&prometheus, begun, last).await;
    drop((life, bystanders));
    for pod in [a, b, c, idle] {
        pod.proxy.has_not_panicked();
    }
}

/// Fails unless every text of every alert has its labels and its value.
fn assert_texts_are_whole(alerts: &Value) {
    let alerts = alerts["data"]["alerts"].as_array().expect("alerts");
    for alert in alerts {
        for text in ["summary", "description", "runbook_url"].map(|key| alert["annotations"][key].as_str()) {
            let text = text.unwrap_or_else(|| panic!("a text is missing: {alert}"));
            let broken = ["<no value>", "%!", "<error", "  ", "()", "{{"].iter().find(|sign| text.contains(**sign));
            assert!(broken.is_none(), "{broken:?} in {text:?} of {alert}");
        }
    }
}

async fn assert_nothing_else_is_pending(prometheus: &Prometheus) {
    let ever = instant("count by (alertname) (max_over_time(ALERTS[5m]))");
    let answer = prometheus.until("the alerts", &ever, is_success).await;
    let others = names(&answer).into_iter().filter(|name| !FIRING.contains(&&**name) && !UNSTEADY.contains(&&**name));
    let others: Vec<_> = others.collect();
    assert!(others.is_empty(), "nothing happened that {others:?} are about: {answer}");
}

async fn assert_every_panel_has_data(prometheus: &Prometheus, begun: f64, end: f64) {
    let mut faults = Vec::new();
    let mut drawn = Vec::new();
    // Two values of a variable, as Grafana joins them.
    let one = Selection { namespace: "shop", job: SHOP, pod: "express-app-a", route: "(/|/echo)" };
    let idle = Selection { job: IDLE, ..ALL };
    for panel in panels() {
        let mut series = Vec::new();
        for query in &panel.queries {
            for selection in [ALL, one, idle] {
                match prometheus.range(&query.with(selection), begun, end).await {
                    Err(error) => faults.push(format!("{}: {error}", panel.title)),
                    Ok(found) => {
                        faults.extend(
                            faults_of(&panel, query, &found).into_iter().map(|fault| format!("{selection:?}: {fault}")),
                        );
                        // While nothing happens, a panel says so in its description.
                        let may_be_empty = selection.job == IDLE && panel.description.contains("Empty while");
                        if found.is_empty() && !may_be_empty && !panel.description.contains("present none") {
                            faults.push(format!("{selection:?}: {}: no data", panel.title));
                        }
                        if selection.job == ALL.job {
                            series
                                .extend(found.into_iter().map(|found| (query.name(&found).0, found["values"].clone())));
                        }
                    }
                }
            }
        }
        let values = series.iter().filter_map(|(_, values)| values.as_array()).flatten();
        let is_zero = values.into_iter().all(|value| value[1] == "0");
        if is_zero != ZERO.contains(&&*panel.title) {
            faults.push(format!("{}: only zeros: {is_zero}", panel.title));
        }
        let unique: BTreeSet<_> = series.iter().map(|(name, _)| name).collect();
        if unique.len() != series.len() {
            faults.push(format!("{}: two series have one name: {unique:?}", panel.title));
        }
        drawn.push(json!({ "panel": panel.json, "series": series }));
    }
    // tests/monitoring/draw makes the picture of it.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard-data.json");
    fs::write(file, json!({ "begun": begun, "end": end, "rows": rows(), "panels": drawn }).to_string())
        .expect("write the data");
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Returns the faults of the answer to a query: values that are no numbers or outside of the panel's unit, names of series
/// without their labels, buckets that do not add up.
fn faults_of(panel: &Panel, query: &Query, found: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for series in found {
        let (name, missing) = query.name(series);
        if !missing.is_empty() || (found.len() > 1 && name.trim().is_empty()) {
            faults.push(format!("no {missing:?} for {:?} in {}", query.legend, series["metric"]));
        }
        for value in series["values"].as_array().into_iter().flatten() {
            let number: f64 = value[1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
            let is_possible = match &*panel.unit {
                "percentunit" => (0.0..=1.0).contains(&number),
                "s" | "cps" | "reqps" | "bytes" | "Bps" | "short" | "none" => number.is_finite() && number >= 0.0,
                unit => panic!("{}: the unit {unit} is new: which values can it have?", panel.title),
            };
            if !is_possible {
                faults.push(format!("{}: {name} is {value} {}", panel.title, panel.unit));
            }
        }
    }
    if panel.kind == "heatmap" {
        faults.extend(bucket_faults(found));
    }
    faults
}

/// Returns the faults of the buckets of a heatmap: Grafana sorts them by `le`, and subtracts each from the next.
fn bucket_faults(found: &[Value]) -> Vec<String> {
    let mut buckets: BTreeMap<i64, Vec<(f64, f64)>> = BTreeMap::new();
    for series in found {
        let bound = series["metric"]["le"].as_str().map(|le| le.replace("+Inf", "inf"));
        let Some(bound) = bound.and_then(|le| le.parse::<f64>().ok()) else {
            return vec![format!("no bound: {series}")];
        };
        for value in series["values"].as_array().into_iter().flatten() {
            let count = value[1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a time")]
            let at = (value[0].as_f64().unwrap_or_default() * 1000.0) as i64;
            buckets.entry(at).or_default().push((bound, count));
        }
    }
    let mut faults = Vec::new();
    for (at, mut buckets) in buckets {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        if !buckets.last().is_some_and(|last| last.0.is_infinite()) || !buckets.is_sorted_by_key(|bucket| bucket.1) {
            faults.push(format!("buckets that do not add up at {at}: {buckets:?}"));
        }
    }
    faults
}
