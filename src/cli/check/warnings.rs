//! Warnings about settings that are valid, but hardly intended or about to fail.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use humantime::{format_duration, format_rfc3339_seconds};

use super::{heartbeat, listener, overlap};
use crate::acme;
use crate::config::{FileCache, Route, Settings, UnreadVariable};
use crate::heartbeat::{Policy, ProofOfLife};
use crate::tls::{Certificate, Validity};

/// The window below which live and dead clients are indistinguishable: round trips over mobile networks and pauses of
/// browsers exceed it.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);
/// The bound above which a dead client's session is kept longer than any network keeps an idle connection.
const LONGEST_BOUND: Duration = Duration::from_secs(60 * 60);

/// Returns all warnings about `settings`, and about `variables` that are not read.
pub(super) fn warnings(settings: &Settings, variables: &[UnreadVariable], cache: &FileCache) -> Vec<String> {
    let mut all: Vec<String> =
        [open_to_pages(settings), listener::open_files(settings)].into_iter().flatten().collect();
    all.extend(certificates(settings, cache, SystemTime::now()));
    let acme = settings.tls.terminate().and_then(|tls| tls.acme.as_deref());
    all.extend(acme.map(acme::warnings).unwrap_or_default().iter().map(ToString::to_string));
    all.extend(windows(&settings.routes));
    all.extend(settings.routes.iter().filter_map(|route| pattern(route)));
    all.extend(variables.iter().map(ToString::to_string));
    all
}

fn open_to_pages(settings: &Settings) -> Option<String> {
    let open: Vec<&Arc<Route>> = settings.open_routes().collect();
    let of = on(&open, &settings.routes)?;
    Some(format!(
        "any web page can open WebSockets{of} in the name of its visitors: \
         set `allow` in [origins] to the origins of your own pages, such as \"same-host\""
    ))
}

/// Returns ` on` and the labels of `some` routes; an empty string for `all` of them, `None` for none.
fn on(some: &[&Arc<Route>], all: &[Arc<Route>]) -> Option<String> {
    match some.len() {
        0 => None,
        many if many == all.len() => Some(String::new()),
        _ => {
            let labels: Vec<String> = some.iter().map(|route| overlap::label(route)).collect();
            Some(format!(" on {}", labels.join(", ")))
        }
    }
}

/// Returns the warnings about certificates that have expired, or will soon.
fn certificates(settings: &Settings, cache: &FileCache, now: SystemTime) -> Vec<String> {
    let mut files: Vec<(String, &Path)> = Vec::new();
    if let Some(tls) = settings.tls.terminate() {
        files.push(("tls.certificate".to_owned(), &tls.certificate));
        let named = tls.sni.iter().enumerate();
        files.extend(named.map(|(index, sni)| (format!("tls.sni[{index}].certificate"), sni.certificate.as_path())));
    }
    for app in settings.upstreams() {
        let identity = app.tls.as_ref().and_then(|tls| tls.identity.as_ref());
        files.extend(identity.map(|(file, _)| ("upstream.tls.certificate".to_owned(), file.as_path())));
    }
    // A file that cannot be read is reported as an error elsewhere.
    let warned = |(key, file): (String, &Path)| about(&key, file, &Certificate::from_pem_file(file, cache)?, now);
    files.into_iter().filter_map(warned).collect()
}

fn about(key: &str, file: &Path, certificate: &Certificate, now: SystemTime) -> Option<String> {
    let day = |time: SystemTime| format_rfc3339_seconds(time).to_string()[..10].to_owned();
    let days = |duration: Duration| match duration.as_secs() / 86_400 {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        many => format!("{many} days"),
    };
    let (not_before, not_after) = (day(certificate.not_before), day(certificate.not_after));
    let state = match certificate.validity(now) {
        Validity::Valid => return None,
        Validity::NotYet(until) => {
            let until = days(until);
            format!("is not valid before {not_before}, in {until}: clients refuse it until then; check the clock")
        }
        Validity::Expires(left) => format!("expires on {not_after}, in {}: renew it", days(left)),
        Validity::Expired(ago) => format!("expired on {not_after}, {} ago: clients refuse it; renew it", days(ago)),
    };
    Some(format!("the certificate in {} ({key}) {state}", file.display()))
}

/// The key of a time limit on the client, and its value in a policy.
type Window = (&'static str, fn(&Policy) -> Option<Duration>);

const WINDOWS: [Window; 4] = [
    ("timeout", |policy| {
        matches!(policy.proof()?, ProofOfLife::Pongs | ProofOfLife::Answers).then_some(policy.timeout)
    }),
    ("window", |policy| match policy.proof()? {
        ProofOfLife::Sends(window) | ProofOfLife::SendsWhenIdle(window) | ProofOfLife::SendsAfterApp(window) => {
            Some(window)
        }
        ProofOfLife::Pongs | ProofOfLife::Answers => None,
    }),
    ("write_stall", |policy| Some(policy.write_stall)),
    ("frame_max_time", |policy| Some(policy.frame_max_time)),
];

/// Returns the warnings about heartbeats that end live clients, or keep dead ones for hours.
fn windows(routes: &[Arc<Route>]) -> Vec<String> {
    let mut all = Vec::new();
    for (key, window) in WINDOWS {
        let of = |route: &Route| window(route.heartbeat.policy()).filter(|window| *window < SHORTEST_WINDOW);
        let short: Vec<&Arc<Route>> = routes.iter().filter(|route| of(route).is_some()).collect();
        if let (Some(on), Some(window)) = (on(&short, routes), short.first().and_then(|route| of(route))) {
            all.push(format!(
                "`{key}` in [heartbeat] is {}{on}, less than a round trip may take: live clients are closed; set at \
                 least \"1s\"",
                format_duration(window)
            ));
        }
    }
    let bound = |route: &Route| heartbeat::longest(&route.heartbeat).filter(|bound| *bound > LONGEST_BOUND);
    let long: Vec<&Arc<Route>> = routes.iter().filter(|route| bound(route).is_some()).collect();
    if let (Some(on), Some(bound)) = (on(&long, routes), long.first().and_then(|route| bound(route))) {
        all.push(format!(
            "a dead client{on} is held for {}: shorten `interval` and `timeout` in [heartbeat], which are 25s and 20s by \
             default",
            format_duration(bound)
        ));
    }
    all
}

/// Returns the warning about a path with wildcards or parameters in the syntax of other programs.
fn pattern(route: &Route) -> Option<String> {
    let path = &*route.path;
    let is_parameter = |part: &str| part.starts_with(':') && part.len() > 1;
    let mark = path.find(['*', '{', '^', '\\', '|', '$']).or_else(|| {
        let mut at = 0;
        path.split('/').find_map(|part| {
            let begin = at;
            at += part.len() + 1;
            is_parameter(part).then_some(begin)
        })
    })?;
    let prefix = &path[..=path[..mark].rfind('/')?];
    Some(format!(
        "the path of the route {} is a prefix, in which every character stands for itself: for all paths below it write \
         {prefix:?}",
        overlap::label(route)
    ))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::config::{Environment, Overrides, from_str};

    fn said(sections: &str) -> String {
        let text = "[tls]\ncertificate = \"/none\"\nprivate_key = \"/none\"\n[origins]\nallow = [\"same-host\"]\n\
                    [upstream]\nurl = \"unix:/a\"\n";
        let text = text.to_owned() + sections;
        let settings = from_str(Path::new("a"), &text, &Environment::default(), &Overrides::default());
        warnings(&settings.unwrap_or_else(|report| panic!("{report}")), &[], &FileCache::default()).join("\n")
    }

    #[test]
    fn windows_that_cannot_work_are_warned_of() {
        assert_snapshot!(said("[heartbeat]\ntimeout = \"50ms\""), @r#"`timeout` in [heartbeat] is 50ms, less than a round trip may take: live clients are closed; set at least "1s""#);
        assert_snapshot!(said("[heartbeat]\ntimeout = \"10h\""), @"a dead client is held for 10h 25s: shorten `interval` and `timeout` in [heartbeat], which are 25s and 20s by default");
        assert_snapshot!(said("[heartbeat]\ninterval = \"10h\"\nwrite_stall = \"99ms\""), @r#"
        `write_stall` in [heartbeat] is 99ms, less than a round trip may take: live clients are closed; set at least "1s"
        a dead client is held for 10h 20s: shorten `interval` and `timeout` in [heartbeat], which are 25s and 20s by default
        "#);
        let routes = "[[route]]\npath = \"/a/\"\nheartbeat = { timeout = \"50ms\" }\n[[route]]\npath = \"/b/\"\n\
                      heartbeat = { profile = \"signalr\", window = \"20ms\" }\n";
        assert_snapshot!(said(routes), @r#"
        `timeout` in [heartbeat] is 50ms on /a/, less than a round trip may take: live clients are closed; set at least "1s"
        `window` in [heartbeat] is 20ms on /b/, less than a round trip may take: live clients are closed; set at least "1s"
        "#);
        assert_eq!(said("[heartbeat]\ntimeout = \"100ms\"\ninterval = \"59m\""), "");
        assert_eq!(said("[heartbeat]\nmode = \"off\"\ntimeout = \"50ms\"\ninterval = \"10h\""), "");
    }

    #[test]
    fn paths_with_wildcards_of_other_programs_are_warned_of() {
        let route = |path: &str| said(&format!("[[route]]\npath = {path:?}\n"));
        assert_snapshot!(route("/chat/*"), @r#"the path of the route /chat/* is a prefix, in which every character stands for itself: for all paths below it write "/chat/""#);
        assert_snapshot!(route("/user/:id/chat"), @r#"the path of the route /user/:id/chat is a prefix, in which every character stands for itself: for all paths below it write "/user/""#);
        assert_snapshot!(route("/user/{id}"), @r#"the path of the route /user/{id} is a prefix, in which every character stands for itself: for all paths below it write "/user/""#);
        assert_snapshot!(route("/*"), @r#"the path of the route /* is a prefix, in which every character stands for itself: for all paths below it write "/""#);
        for sound in ["/chat/", "/", "/a:b/", "/time/12:30", "/a(b)"] {
            assert_eq!(route(sound), "", "{sound}");
        }
    }

    #[test]
    fn a_certificate_is_warned_of_by_key_file_and_day() {
        let day = Duration::from_secs(86_400);
        let at = |days: u32| SystemTime::UNIX_EPOCH + days * day;
        let certificate = Certificate {
            file: None,
            names: Vec::new(),
            not_before: at(20_000),
            not_after: at(20_090),
            fingerprint: [0; 32],
            for_names: Vec::new(),
        };
        let said = |now| about("tls.certificate", Path::new("/tls.crt"), &certificate, now).unwrap_or_default();
        assert_snapshot!(said(at(19_999)), @"the certificate in /tls.crt (tls.certificate) is not valid before 2024-10-04, in 1 day: clients refuse it until then; check the clock");
        assert_eq!(said(at(20_075)), "");
        assert_snapshot!(said(at(20_076)), @"the certificate in /tls.crt (tls.certificate) expires on 2025-01-02, in 14 days: renew it");
        assert_snapshot!(said(at(20_090)), @"the certificate in /tls.crt (tls.certificate) expires on 2025-01-02, in less than a day: renew it");
        assert_snapshot!(said(at(20_100)), @"the certificate in /tls.crt (tls.certificate) expired on 2025-01-02, 10 days ago: clients refuse it; renew it");
    }
}
