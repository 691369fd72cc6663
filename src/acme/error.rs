//! The failures of an order, with what they mean for the next attempt.

use std::error::Error as _;
use std::io::{self, ErrorKind::UnexpectedEof};
use std::time::Duration;

use http::{StatusCode, Uri};
use thiserror::Error;

use super::external_key::ExternalKeyError;
use super::http_client::{RefusalDetails, RequestError};
use super::storage::StorageError;
use crate::config::AcmeChallenge;
use crate::tls::IdentityError;
use crate::tls::client::TrustError;

/// The reason for which an order did not end with a certificate.
#[derive(Debug, Error)]
pub(super) enum OrderError {
    /// The storage folder.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The authorities that the directory's certificate is checked against.
    #[error("cannot verify the authority: {0}")]
    Trust(#[from] TrustError),
    /// The key of the external account.
    #[error(transparent)]
    ExternalAccount(#[from] ExternalKeyError),
    /// The request did not reach the authority, or its response did not arrive.
    #[error("cannot reach the authority: {0}")]
    Unreachable(#[source] RequestError),
    /// The authority is there and does not do its work.
    #[error("the authority answers with {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    /// There is something else than an ACME directory.
    #[error("there is no ACME directory: {url} answers with {status}")]
    NotThere { status: StatusCode, url: Uri },
    /// The URL leads to another, which is not followed: an authority that moves says so to its users.
    #[error("{url} answers with {status}{}", location.as_ref().map(|to| format!(" and leads to {to}")).unwrap_or_default())]
    Redirect { status: StatusCode, url: Uri, location: Option<String> },
    /// The response is not what the protocol asks for.
    #[error("the authority's response is not ACME: {0}")]
    Response(String),
    /// The authority refused, with a problem document (RFC 8555 §6.7).
    #[error("the authority refuses: {problem}")]
    Refused { problem: String, kind: Option<String>, details: RefusalDetails },
    /// The authority did not see that a name leads here.
    #[error("the authority cannot verify {domain} by {}: {detail}", challenge.as_str())]
    Challenge { domain: String, challenge: AcmeChallenge, detail: String },
    /// The authority offers no challenge of the configured kind.
    #[error(
        "the authority offers no {} for {domain} (tls.acme.challenge), {}",
        challenge.as_str(), if offered.is_empty() { "and none else".to_owned() } else { format!("but {}", offered.join(", ")) }
    )]
    NoChallenge { domain: String, challenge: AcmeChallenge, offered: Vec<String> },
    /// The certificate that the authority issued cannot be used.
    #[error("the issued certificate cannot be used: {0}")]
    Issued(String),
    /// The key or the request cannot be made.
    #[error("cannot make a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// The account that ordered the certificate is lost.
    #[error("{0} (tls.acme.storage): there is no account of this authority")]
    NoAccount(String),
    /// The order took too long.
    #[error("the authority did not issue the certificate in time")]
    TimedOut,
    /// A bug.
    #[error("internal error; please report this")]
    Internal,
}

/// The kinds of refusals that the operator can end, each with the remedy (RFC 8555 §6.7).
const REMEDIES: [(&str, &str); 8] = [
    ("caa", "allow this authority in the CAA record of the name"),
    ("connection", "let the names lead to this host"),
    ("dns", "let the names resolve to this host"),
    ("externalAccountRequired", "set tls.acme.external_account to the account that you have with the authority"),
    ("invalidContact", "correct tls.acme.contact"),
    ("rejectedIdentifier", "leave the name out of tls.acme.domains, or use another authority"),
    ("unsupportedContact", "correct tls.acme.contact"),
    ("unsupportedIdentifier", "leave the name out of tls.acme.domains, or use another authority"),
];

fn leads_to(challenge: AcmeChallenge) -> &'static str {
    match challenge {
        AcmeChallenge::TlsAlpn01 => "listen.address",
        AcmeChallenge::Http01 => "listen.redirect",
    }
}

impl OrderError {
    /// Returns the failure that the protocol library reports; `details` are those of the last refusal.
    pub(super) fn of_library(error: instant_acme::Error, details: RefusalDetails) -> Self {
        use instant_acme::Error;
        match error {
            Error::Api(problem) => Self::of_problem(&problem, details),
            Error::Other(error) => match error.downcast::<RequestError>() {
                Ok(error) => Self::of_request(*error, &details),
                Err(error) => Self::Response(error.to_string()),
            },
            Error::Timeout(_) => Self::TimedOut,
            other => Self::Response(other.to_string()),
        }
    }

    /// Returns the refusal in a problem document.
    pub(super) fn of_problem(problem: &instant_acme::Problem, details: RefusalDetails) -> Self {
        Self::Refused { problem: text(problem), kind: problem.r#type.clone(), details }
    }

    /// Returns the failure of a request.
    pub(super) fn of_request(error: RequestError, details: &RefusalDetails) -> Self {
        match error {
            RequestError::Status { status, url, location } if status.is_redirection() => {
                Self::Redirect { status, url, location }
            }
            RequestError::Status { status, url, .. } => match status {
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                    Self::Status { status, retry_after: details.retry_after }
                }
                status if status.is_client_error() => Self::NotThere { status, url },
                status => Self::Status { status, retry_after: details.retry_after },
            },
            RequestError::TooLarge | RequestError::Address(_) => Self::Response(error.to_string()),
            error => Self::Unreachable(error),
        }
    }

    /// Returns the remedy, where the operator has one.
    fn remedy(&self) -> Option<String> {
        let text = match self {
            // They have their own.
            Self::Storage(_) | Self::ExternalAccount(_) | Self::Internal => return None,
            Self::Trust(_) => "correct tls.acme.ca",
            Self::Unreachable(RequestError::Tls { .. }) => {
                "for an authority of your own, name the file of its CA (tls.acme.ca)"
            }
            Self::Unreachable(_) => "let this host connect to it, and check tls.acme.directory",
            Self::Status { .. } | Self::TimedOut => "wait for the authority",
            Self::NotThere { .. } | Self::Response(_) => "check the URL of the directory (tls.acme.directory)",
            Self::Redirect { .. } => "set the URL that it leads to (tls.acme.directory)",
            Self::Issued(_) | Self::Key(_) => "report it to the authority",
            Self::NoAccount(_) => "only the account that ordered a certificate, or its own key, can revoke it",
            Self::NoChallenge { challenge, offered, .. } => {
                let other = [AcmeChallenge::TlsAlpn01, AcmeChallenge::Http01]
                    .into_iter()
                    .find(|other| other != challenge && offered.iter().any(|offered| offered == other.as_str()));
                return Some(match other {
                    Some(other) => format!("set challenge = \"{}\"", other.as_str()),
                    None => "use an authority that offers tls-alpn-01 or http-01 for it".to_owned(),
                });
            }
            Self::Challenge { challenge, .. } => {
                let (port, key) = (challenge.port(), leads_to(*challenge));
                return Some(format!("let the name resolve to this host, and lead port {port} of it to {key}"));
            }
            Self::Refused { details: RefusalDetails { page: Some(page), .. }, .. } => {
                return Some(format!("do what the authority asks for on {page}"));
            }
            Self::Refused { .. } => REMEDIES.into_iter().find(|(kind, _)| self.is_kind(kind))?.1,
        };
        Some(text.to_owned())
    }

    /// Returns the value of the metric's label and of the log's field.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Storage(_) => "storage",
            Self::Unreachable(_) | Self::Status { .. } | Self::TimedOut => "unreachable",
            Self::Refused { .. } if self.is_rate_limit() => "rate_limited",
            Self::Refused { .. } | Self::NoChallenge { .. } => "refused",
            Self::Challenge { .. } => "challenge_failed",
            Self::NotThere { .. } | Self::Redirect { .. } | Self::Response(_) | Self::Issued(_) => "invalid_response",
            Self::Trust(_) | Self::ExternalAccount(_) => "configuration",
            Self::Key(_) | Self::NoAccount(_) | Self::Internal => "internal",
        }
    }

    /// Returns whether the authority counts the attempt towards its limits.
    pub(super) fn is_counted(&self) -> bool {
        let is_free = matches!(
            self,
            Self::Storage(_) | Self::Unreachable(_) | Self::Status { .. } | Self::Trust(_) | Self::ExternalAccount(_)
        );
        // The protocol library tries a refused nonce again, but not for long.
        !is_free && !self.is_bad_nonce()
    }

    /// Returns the wait that the authority asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { details, .. } => details.retry_after,
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns whether the authority does not have the account (RFC 8555 §6.7).
    pub(super) fn is_unknown_account(&self) -> bool {
        self.is_kind("accountDoesNotExist")
    }

    /// Returns whether the authority wants another nonce (RFC 8555 §6.5).
    pub(super) fn is_bad_nonce(&self) -> bool {
        self.is_kind("badNonce")
    }

    fn is_rate_limit(&self) -> bool {
        self.is_kind("rateLimited")
    }

    fn is_kind(&self, suffix: &str) -> bool {
        matches!(self, Self::Refused { kind: Some(kind), .. } if kind.strip_prefix("urn:ietf:params:acme:error:") == Some(suffix))
    }

    /// Returns all of it in one line, with the causes that the text does not name, and the remedy.
    pub(super) fn one_line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source().and_then(|source| source.source());
        while let Some(error) = cause {
            let next = error.to_string();
            // The TLS library's words for it are a link to its manual.
            let is_cut_off = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == UnexpectedEof);
            if !text.contains(&next) && !is_cut_off {
                text = format!("{text}: {next}");
            }
            cause = error.source();
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // An authority may answer with anything.
        let remedy = self.remedy().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        let is_fit = |c: &char| !c.is_control();
        let left = LONGEST_LINE.saturating_sub(remedy.chars().count());
        words.chars().filter(is_fit).take(left).chain(remedy.chars().filter(is_fit)).take(LONGEST_LINE).collect()
    }
}

/// Characters of an error in the log; an authority may send a page.
const LONGEST_LINE: usize = 800;

/// Returns the words of a problem document.
pub(super) fn text(problem: &instant_acme::Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("no type");
    let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
    let whole = format!("{} ({kind})", problem.detail.as_deref().unwrap_or("no reason given"));
    problem.subproblems.iter().fold(whole, |text, part| format!("{text}; {part}"))
}

/// Returns the fault of the chain that an authority issued; it is in no file yet.
pub(super) fn issued(error: &IdentityError) -> OrderError {
    OrderError::Issued(match error {
        IdentityError::NoCertificate { .. } => "the response holds no certificate".to_owned(),
        IdentityError::Pem { reason, .. } => format!("damaged PEM: {reason}"),
        IdentityError::BadCertificate { .. } => "the first certificate of the response is not valid X.509".to_owned(),
        IdentityError::SeveralKeys { .. } => "the response holds a private key".to_owned(),
        IdentityError::LeafNotFirst { .. } => "the certificate for the requested key is not the first".to_owned(),
        IdentityError::Mismatch { .. } => "it is for another key than the requested one".to_owned(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::external_key;
    use super::*;
    use crate::config::{ExternalAccount, FileCache};

    fn refused(kind: &str) -> OrderError {
        OrderError::Refused {
            problem: "no".into(),
            kind: Some(format!("urn:ietf:params:acme:error:{kind}")),
            details: RefusalDetails { retry_after: Some(Duration::from_secs(7)), page: None },
        }
    }

    #[test]
    fn only_what_the_authority_counts_is_counted() {
        assert!(refused("rateLimited").is_counted() && refused("malformed").is_counted());
        assert!(!OrderError::Unreachable(RequestError::Timeout).is_counted());
        let busy = OrderError::Status { status: http::StatusCode::SERVICE_UNAVAILABLE, retry_after: None };
        assert!(!busy.is_counted() && !refused("badNonce").is_counted());
        assert_eq!((refused("rateLimited").label(), refused("malformed").label()), ("rate_limited", "refused"));
        assert_eq!(refused("rateLimited").retry_after(), Some(Duration::from_secs(7)));
        assert!(refused("accountDoesNotExist").is_unknown_account() && !refused("rateLimited").is_unknown_account());
    }

    #[test]
    fn nonsense_of_an_authority_is_one_short_line() {
        let page = format!("<html>\r\n{}\u{1b}[31m</html>", "x".repeat(5000));
        let line = OrderError::Response(page).one_line();
        assert!(line.starts_with("the authority's response is not ACME: <html> xxx"), "{line}");
        assert!(line.len() <= LONGEST_LINE && !line.contains(['\n', '\u{1b}']), "{line}");
    }

    #[test]
    fn the_key_of_an_external_account_is_the_operators() {
        let account = ExternalAccount { key_id: "kid".into(), key_file: "/nowhere/eab.key".into() };
        let Err(error) = external_key::read(&account, &FileCache::default()) else { panic!("a key of nothing") };
        let error = OrderError::from(error);
        assert_eq!((error.label(), error.is_counted()), ("configuration", false));
        let line = error.one_line();
        assert!(line.starts_with("/nowhere/eab.key: cannot be read: "), "{line}");
        assert!(line.contains(" (tls.acme.external_account.key_file); name a file "), "{line}");
    }

    #[test]
    fn a_wrong_url_of_the_directory_is_the_operators_and_an_outage_is_not() {
        let of = |status: u16, location: Option<&str>| {
            let status = StatusCode::from_u16(status).expect("a status");
            let (url, location) = (Uri::from_static("https://ca.example/dir"), location.map(str::to_owned));
            OrderError::of_request(RequestError::Status { status, url, location }, &RefusalDetails::default())
        };
        for status in [400, 401, 403, 404, 405, 410] {
            let error = of(status, None);
            assert_eq!((error.label(), error.is_counted()), ("invalid_response", true), "{status}");
        }
        assert_eq!(
            of(404, None).one_line(),
            "there is no ACME directory: https://ca.example/dir answers with 404 Not Found; check the URL of the directory \
             (tls.acme.directory)"
        );
        let moved = of(302, Some("https://acme.example/directory"));
        assert_eq!((moved.label(), moved.is_counted()), ("invalid_response", true));
        assert_eq!(
            moved.one_line(),
            "https://ca.example/dir answers with 302 Found and leads to https://acme.example/directory; set the URL that it \
             leads to (tls.acme.directory)"
        );
        for status in [408, 429, 500, 502, 503] {
            let error = of(status, None);
            assert_eq!((error.label(), error.is_counted()), ("unreachable", false), "{status}");
        }
    }

    #[test]
    fn a_refusal_has_the_way_out() {
        let asked = OrderError::Refused {
            problem: "accept the new terms (userActionRequired)".into(),
            kind: Some("urn:ietf:params:acme:error:userActionRequired".into()),
            details: RefusalDetails { retry_after: None, page: Some("https://ca.example/terms".into()) },
        };
        assert!(asked.one_line().ends_with("; do what the authority asks for on https://ca.example/terms"));
        for (kind, words) in [("caa", "CAA record"), ("rejectedIdentifier", "tls.acme.domains")] {
            assert!(refused(kind).one_line().contains(words), "{kind}");
        }
        let none = |offered: &[&str]| {
            let offered = offered.iter().map(|kind| (*kind).to_owned()).collect();
            let (domain, challenge) = ("a.example".to_owned(), AcmeChallenge::TlsAlpn01);
            OrderError::NoChallenge { domain, challenge, offered }.one_line()
        };
        assert_eq!(
            none(&[]),
            "the authority offers no tls-alpn-01 for a.example (tls.acme.challenge), and none else; use an authority that \
             offers tls-alpn-01 or http-01 for it"
        );
        assert!(none(&["dns-01", "http-01"]).ends_with(", but dns-01, http-01; set challenge = \"http-01\""));
    }

    #[test]
    fn a_long_page_leaves_room_for_the_remedy() {
        let line = OrderError::Response("x".repeat(5000)).one_line();
        assert!(line.ends_with("(tls.acme.directory)") && line.chars().count() == LONGEST_LINE, "{line}");
    }

    #[test]
    fn a_failed_challenge_names_the_port_and_the_key() {
        let of = |challenge| OrderError::Challenge { domain: "a.example".into(), challenge, detail: "refused".into() };
        let line = of(AcmeChallenge::TlsAlpn01).one_line();
        assert!(line.starts_with("the authority cannot verify a.example by tls-alpn-01: refused; "), "{line}");
        assert!(line.ends_with("lead port 443 of it to listen.address"), "{line}");
        assert!(of(AcmeChallenge::Http01).one_line().ends_with("lead port 80 of it to listen.redirect"));
    }
}
