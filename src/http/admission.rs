//! The admission of a valid handshake: the origin of its page, and the memory that is left.

use hyper::HeaderMap;
use hyper::header::{HeaderValue, ORIGIN};

use super::connection::ClientConnection;
use super::forwarded;
use crate::config::{OriginPolicy, Route};
use crate::telemetry::log_events;
use crate::upgrade::UpgradeRefusal;

/// Admits a handshake for `route`, or returns the refusal. `host` is the authority that it names.
pub(super) fn admit(
    connection: &ClientConnection,
    route: &Route,
    headers: &HeaderMap,
    host: &HeaderValue,
) -> Result<(), UpgradeRefusal> {
    let asked_for = forwarded::host(&connection.rules.forwarded, connection.peer.address, headers, host);
    check_origin(&route.origins, headers, &asked_for)?;
    let held = connection.edge.metrics.memory().total();
    match connection.rules.limits.memory {
        // Sessions that are open go on: theirs is the memory, and it shrinks again when their peers read.
        Some(limit) if held > limit => Err(UpgradeRefusal::Memory { held, limit }),
        _ => Ok(()),
    }
}

/// Checks the `Origin` of a handshake: browsers let any page open a WebSocket to anywhere, with cookies, and leave it to
/// the server to check the page's origin (RFC 6455 §10.2). A client without the field is no browser.
fn check_origin(policy: &OriginPolicy, headers: &HeaderMap, host: &HeaderValue) -> Result<(), UpgradeRefusal> {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    let is_allowed = match policy {
        OriginPolicy::Any => true,
        // One that comes twice is none that could be judged.
        OriginPolicy::Only(_) => match (origin.to_str(), host.to_str(), origins.next()) {
            (Ok(origin), Ok(host), None) => policy.allows(origin, host),
            _ => false,
        },
    };
    if is_allowed { Ok(()) } else { Err(UpgradeRefusal::Origin(log_events::escaped(origin.as_bytes()))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AllowedOrigin;

    fn asks(policy: &OriginPolicy, origins: &[&'static [u8]]) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(ORIGIN, HeaderValue::from_bytes(origin).unwrap());
        }
        let host = HeaderValue::from_static("app.example");
        check_origin(policy, &headers, &host).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn a_page_is_judged_by_its_one_origin() {
        let policy = OriginPolicy::Only(vec![AllowedOrigin::SameHost]);
        assert_eq!(asks(&policy, &[]), Ok(()));
        assert_eq!(asks(&policy, &[b"https://app.example"]), Ok(()));
        for (origins, shown) in [
            (&[&b"https://evil.example"[..]][..], "https://evil.example"),
            (&[b"https://app.example", b"https://app.example"], "https://app.example"),
            (&[b"https://app.example\xff"], "https://app.example\u{fffd}"),
            (&[b"https://app.example, https://evil.example"], "https://app.example, https://evil.example"),
            (&[b"null"], "null"),
            (&[b""], ""),
        ] {
            assert_eq!(asks(&policy, origins), Err(format!("origin {shown} is not allowed")));
        }
    }

    #[test]
    fn a_policy_of_none_lets_no_page_in_and_no_policy_lets_all_in() {
        assert!(asks(&OriginPolicy::Only(Vec::new()), &[b"https://app.example"]).is_err());
        assert_eq!(asks(&OriginPolicy::Only(Vec::new()), &[]), Ok(()));
        assert_eq!(asks(&OriginPolicy::Any, &[b"https://evil.example\xff", b"null"]), Ok(()));
    }

    #[test]
    fn a_long_origin_is_cut_for_the_log() {
        let shown = asks(&OriginPolicy::Only(Vec::new()), &[&[b'x'; 4000]]).unwrap_err();
        assert!(shown.len() < 300, "{} bytes", shown.len());
    }
}
