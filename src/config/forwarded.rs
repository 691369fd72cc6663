//! The client's address and identity in the headers of a request, as the app gets them.

use super::cidr::Cidr;

/// The handling of headers about the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed; those of all other peers are replaced.
    pub trusted_proxies: Vec<Cidr>,
    /// Set if `Forwarded` (RFC 7239) is sent beside `X-Forwarded-*`.
    pub rfc7239: bool,
    /// Header fields that are removed from requests of untrusted peers, in lower case.
    pub strip: Vec<Box<str>>,
}

/// Fields that the proxies of hosting companies, and proxies that authenticate users, set for the app behind them.
pub(crate) const IDENTITY_FIELDS: [&str; 36] = [
    "client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "fastly-client-ip",
    "fly-client-ip",
    "forwarded-for",
    "front-end-https",
    "proxy-client-ip",
    "remote-user",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-arr-clientcert",
    "x-arr-ssl",
    "x-auth-request-email",
    "x-auth-request-user",
    "x-azure-clientip",
    "x-client-cert",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-forwarded",
    "x-forwarded-access-token",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-prefix",
    "x-forwarded-preferred-username",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-forwarded-user",
    "x-original-forwarded-for",
    "x-original-host",
    "x-remote-user",
    "x-ssl-client-cert",
];

impl Default for Forwarded {
    fn default() -> Self {
        Self { trusted_proxies: Vec::new(), rfc7239: false, strip: IDENTITY_FIELDS.map(Into::into).into() }
    }
}
