//! The failures of an order, with what they mean for the next attempt.

use std::error::Error as _;
use std::time::Duration;

use thiserror::Error;

use super::http_client::RequestError;
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
    #[error("{what} (tls.acme.external_account.key_file); {help}")]
    ExternalAccount { what: String, help: &'static str },
    /// The request did not reach the authority, or its response did not arrive.
    #[error("cannot reach the authority: {0}")]
    Unreachable(#[source] RequestError),
    /// The authority is there and does not do its work.
    #[error("the authority answers with {status}")]
    Status { status: http::StatusCode, retry_after: Option<Duration> },
    /// The response is not what the protocol asks for.
    #[error("the authority's response is not ACME: {0} (tls.acme.directory); check the URL of the directory")]
    Response(String),
    /// The authority refused, with a problem document (RFC 8555 §6.7).
    #[error("the authority refuses: {problem}")]
    Refused { problem: String, kind: Option<String>, retry_after: Option<Duration> },
    /// The authority did not see that a name leads here.
    #[error(
        "the authority cannot verify {domain} by {}: {detail}; let the name resolve to this host, and lead port {} of it \
         to {}",
        challenge.as_str(), challenge.port(), leads_to(*challenge)
    )]
    Challenge { domain: String, challenge: AcmeChallenge, detail: String },
    /// The authority offers no challenge of the configured kind.
    #[error("the authority offers no {} for {domain} (tls.acme.challenge); it offers {offered}", challenge.as_str())]
    NoChallenge { domain: String, challenge: AcmeChallenge, offered: String },
    /// The certificate that the authority issued cannot be used.
    #[error("the issued certificate cannot be used: {0}")]
    Issued(#[from] IdentityError),
    /// The certificate is not for a name that was ordered, or has expired.
    #[error("the issued certificate cannot be used: it {0}")]
    Unfit(String),
    /// The key or the request cannot be made.
    #[error("cannot make a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// The account that ordered the certificate is lost.
    #[error("there is no account of this authority (tls.acme.storage); only the account that ordered can revoke")]
    NoAccount,
    /// The order took too long.
    #[error("the authority did not issue the certificate in time")]
    TimedOut,
    /// A bug.
    #[error("internal error; please report this")]
    Internal,
}

fn leads_to(challenge: AcmeChallenge) -> &'static str {
    match challenge {
        AcmeChallenge::TlsAlpn01 => "listen.address",
        AcmeChallenge::Http01 => "listen.redirect",
    }
}

impl OrderError {
    /// Returns the failure that the protocol library reports; `retry_after` is the wait that the last response asked for.
    pub(super) fn of_library(error: instant_acme::Error, retry_after: Option<Duration>) -> Self {
        use instant_acme::Error;
        match error {
            Error::Api(problem) => Self::Refused { problem: text(&problem), kind: problem.r#type, retry_after },
            Error::Other(error) => match error.downcast::<RequestError>() {
                Ok(error) => match *error {
                    RequestError::Status(status) => Self::Status { status, retry_after },
                    RequestError::TooLarge | RequestError::Address(_) => Self::Response(error.to_string()),
                    error => Self::Unreachable(error),
                },
                Err(error) => Self::Response(error.to_string()),
            },
            Error::Timeout(_) => Self::TimedOut,
            other => Self::Response(other.to_string()),
        }
    }

    /// Returns the value of the metric's label and of the log's field.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Storage(_) => "storage",
            Self::Unreachable(_) | Self::Status { .. } | Self::TimedOut => "unreachable",
            Self::Refused { .. } if self.is_rate_limit() => "rate_limited",
            Self::Refused { .. } | Self::NoChallenge { .. } => "refused",
            Self::Challenge { .. } => "challenge_failed",
            Self::Response(_) | Self::Issued(_) | Self::Unfit(_) => "invalid_response",
            Self::Trust(_) | Self::ExternalAccount { .. } | Self::Key(_) | Self::NoAccount | Self::Internal => {
                "internal"
            }
        }
    }

    /// Returns whether the authority counts the attempt towards its limits.
    pub(super) fn is_counted(&self) -> bool {
        let is_free = matches!(self, Self::Storage(_) | Self::Unreachable(_) | Self::Status { .. } | Self::Trust(_));
        // The protocol library tries a refused nonce again, but not for long.
        !is_free && !self.is_kind("badNonce")
    }

    /// Returns the wait that the authority asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Returns whether the authority does not have the account (RFC 8555 §6.7).
    pub(super) fn is_unknown_account(&self) -> bool {
        self.is_kind("accountDoesNotExist")
    }

    fn is_rate_limit(&self) -> bool {
        self.is_kind("rateLimited")
    }

    fn is_kind(&self, suffix: &str) -> bool {
        matches!(self, Self::Refused { kind: Some(kind), .. } if kind.strip_prefix("urn:ietf:params:acme:error:") == Some(suffix))
    }

    /// Returns all of it in one line, with the causes that the text does not name.
    pub(super) fn one_line(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source().and_then(|source| source.source());
        while let Some(error) = cause {
            let next = error.to_string();
            if !text.contains(&next) {
                text = format!("{text}: {next}");
            }
            cause = error.source();
        }
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // An authority may answer with anything.
        words.chars().filter(|c| !c.is_control()).take(LONGEST_LINE).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str) -> OrderError {
        OrderError::Refused {
            problem: "no".into(),
            kind: Some(format!("urn:ietf:params:acme:error:{kind}")),
            retry_after: Some(Duration::from_secs(7)),
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
    fn a_failed_challenge_names_the_port_and_the_key() {
        let of = |challenge| OrderError::Challenge { domain: "a.example".into(), challenge, detail: "refused".into() };
        let line = of(AcmeChallenge::TlsAlpn01).one_line();
        assert!(line.starts_with("the authority cannot verify a.example by tls-alpn-01: refused; "), "{line}");
        assert!(line.ends_with("lead port 443 of it to listen.address"), "{line}");
        assert!(of(AcmeChallenge::Http01).one_line().ends_with("lead port 80 of it to listen.redirect"));
    }
}
