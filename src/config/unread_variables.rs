//! Environment variables that look as if they set a key, and are not read.

use std::ffi::OsString;
use std::fmt;

use super::overrides;
use super::path::KeyPath;
use super::suggestion::nearest;

/// An environment variable that is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadVariable {
    /// Its name.
    pub variable: String,
    /// The variable or flag that is read in its place.
    pub instead: String,
}

impl fmt::Display for UnreadVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment variable {} is not read: set {}", self.variable, self.instead)
    }
}

/// The prefix of variables that may be meant for pulsegate. Those that are read have one underscore more.
const PREFIX: &str = "PULSEGATE_";

/// Names of no key, with the key that may be meant.
const MEANT: [(&str, [&str; 2]); 9] = [
    ("port", ["listen", "address"]),
    ("listen", ["listen", "address"]),
    ("listen_port", ["listen", "address"]),
    ("upstream", ["upstream", "url"]),
    ("certificate", ["tls", "certificate"]),
    ("cert", ["tls", "certificate"]),
    ("private_key", ["tls", "private_key"]),
    ("key", ["tls", "private_key"]),
    ("log", ["log", "level"]),
];

/// Those of `variables` that are not read, where `keys` are all keys there are.
pub(super) fn unread(variables: impl Iterator<Item = (OsString, OsString)>, keys: &[KeyPath]) -> Vec<UnreadVariable> {
    let mut unread: Vec<UnreadVariable> = variables
        .filter_map(|(name, value)| {
            let (name, value) = (name.into_string().ok()?, value.into_string().ok()?);
            let instead = if name == "RUST_LOG" {
                (!value.is_empty()).then(|| instead(&["log", "level"].into_iter().collect()))?
            } else {
                let rest = name.strip_prefix(PREFIX).filter(|rest| !rest.starts_with('_'))?;
                if is_of_a_service(rest, &value) {
                    return None;
                }
                meant(&rest.to_lowercase(), keys)?
            };
            Some(UnreadVariable { variable: name, instead })
        })
        .collect();
    unread.sort_by(|one, other| one.variable.cmp(&other.variable));
    unread
}

/// Returns the variable or flag that is meant by `PULSEGATE_` and `rest`.
fn meant(rest: &str, keys: &[KeyPath]) -> Option<String> {
    if matches!(rest, "config" | "config_file" | "config_path") {
        return Some("the flag -c".to_owned());
    }
    if let Some((_, key)) = MEANT.iter().find(|(name, _)| *name == rest) {
        return Some(instead(&key.iter().copied().collect()));
    }
    let flat: Vec<(String, &KeyPath)> =
        keys.iter().map(|key| (key.keys().collect::<Vec<_>>().join("_"), key)).collect();
    let near = nearest(rest, flat.iter().map(|(flat, _)| flat.as_str()))?;
    flat.iter().find(|(flat, _)| flat == near).map(|(_, key)| instead(key))
}

fn instead(key: &KeyPath) -> String {
    let flag = overrides::flag(key).map(|flag| format!(", or the flag {flag}")).unwrap_or_default();
    format!("{} (two underscores each time){flag}", overrides::variable(key))
}

/// Returns whether Kubernetes made it for a Service whose name begins with `pulsegate` (the service links of a pod).
fn is_of_a_service(rest: &str, value: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let has_port = rest.split("PORT_").nth(1).is_some_and(|port| port.starts_with(|c: char| c.is_ascii_digit()));
    rest.ends_with("SERVICE_HOST") || rest.contains("SERVICE_PORT") || is_address || has_port
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(variables: &[(&str, &str)]) -> Vec<String> {
        let keys = [["listen", "address"], ["heartbeat", "interval"], ["tls", "certificate"], ["log", "level"]];
        let keys: Vec<KeyPath> = keys.into_iter().map(|key| key.into_iter().collect()).collect();
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        unread(variables, &keys).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn variables_that_look_like_keys_are_named_with_what_is_read() {
        let variables = [
            ("PULSEGATE_LISTEN", "0.0.0.0:1"),
            ("PULSEGATE_PORT", "8443"),
            ("PULSEGATE_HEARTBEAT_INTERVAL", "5s"),
            ("PULSEGATE_HEARTBEAT_INTERVALL", "5s"),
            ("PULSEGATE_CONFIG", "a.toml"),
            ("RUST_LOG", "debug"),
        ];
        insta::assert_snapshot!(reported(&variables).join("\n"), @"
        the environment variable PULSEGATE_CONFIG is not read: set the flag -c
        the environment variable PULSEGATE_HEARTBEAT_INTERVAL is not read: set PULSEGATE__HEARTBEAT__INTERVAL (two underscores each time)
        the environment variable PULSEGATE_HEARTBEAT_INTERVALL is not read: set PULSEGATE__HEARTBEAT__INTERVAL (two underscores each time)
        the environment variable PULSEGATE_LISTEN is not read: set PULSEGATE__LISTEN__ADDRESS (two underscores each time), or the flag --listen
        the environment variable PULSEGATE_PORT is not read: set PULSEGATE__LISTEN__ADDRESS (two underscores each time), or the flag --listen
        the environment variable RUST_LOG is not read: set PULSEGATE__LOG__LEVEL (two underscores each time), or the flag --log-level
        ");
    }

    #[test]
    fn service_links_and_other_variables_are_no_mistakes() {
        let variables = [
            ("PULSEGATE__LISTEN__ADDRESS", "[::]:1"),
            ("PULSEGATE_PORT", "tcp://10.0.0.1:8443"),
            ("PULSEGATE_PORT_8443_TCP", "tcp://10.0.0.1:8443"),
            ("PULSEGATE_PORT_8443_TCP_ADDR", "10.0.0.1"),
            ("PULSEGATE_PORT_8443_TCP_PORT", "8443"),
            ("PULSEGATE_SERVICE_HOST", "10.0.0.1"),
            ("PULSEGATE_SERVICE_PORT", "8443"),
            ("PULSEGATE_SERVICE_PORT_HTTPS", "8443"),
            ("PULSEGATE_ADMIN_SERVICE_HOST", "10.0.0.1"),
            ("PULSEGATE_VERSION", "1.2.3"),
            ("RUST_LOG", ""),
            ("PATH", "/bin"),
        ];
        assert_eq!(reported(&variables), [""; 0]);
    }
}
