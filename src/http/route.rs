//! The route of a request.

use std::sync::Arc;

use crate::config::{Route, bare_host};

/// The routes in the order in which they are tried, the one for every host and path last.
#[derive(Debug)]
pub(super) struct Routes(Vec<Arc<Route>>);

impl Routes {
    pub(super) fn new(routes: Vec<Arc<Route>>) -> Self {
        let is_default = |route: &Arc<Route>| &*route.path == "/" && route.host.is_none();
        debug_assert!(routes.last().is_some_and(is_default), "there is a default route");
        Self(routes)
    }

    /// The route of a request for `path` on `host`, the authority that it names if any: of the routes for exactly this
    /// host, else of those for a wildcard that it falls under, else of those for any, the one with the longest prefix.
    ///
    /// The app gets the bytes that the client sent, and apps differ in how they read them: `//admin/x` and
    /// `/%61dmin/x` are `/admin/x` to some and something else to others. Where these readings lead to different routes,
    /// the app's would be under another route's rules than it has: `None`. The target of dot segments is not known:
    /// they are `None` as soon as there are two routes to choose from. No client sends them (RFC 3986 §5.2.4).
    pub(super) fn find(&self, host: Option<&str>, path: &str) -> Option<&Arc<Route>> {
        if let [only] = &*self.0 {
            return Some(only);
        }
        let host = host.map(bare_host);
        let is_host = |route: &&Arc<Route>| match (&route.host, &host) {
            (None, _) => true,
            (Some(pattern), Some(host)) => pattern.matches(host),
            (Some(_), None) => false,
        };
        // Behind a route that takes every path there is none to choose.
        let routes = || {
            let mut is_over = false;
            let more = move |route: &&Arc<Route>| !std::mem::replace(&mut is_over, &*route.path == "/");
            self.0.iter().filter(is_host).take_while(more)
        };
        // The `*` of OPTIONS has no prefix.
        let fits = |route: &&Arc<Route>| path.starts_with(&*route.path) || &*route.path == "/";
        let route = routes().find(fits).unwrap_or_else(|| self.default());
        if routes().nth(1).is_none() {
            return Some(route);
        }
        let leads_here = |begins: &dyn Fn(&str) -> bool| {
            let other = routes().find(|other| begins(&other.path));
            other.is_none_or(|other| Arc::ptr_eq(other, route) || differ_in_case(other, route))
        };
        // The literal reading is one extreme, and these are the other: a reading in between, with some of the spellings
        // resolved, leads to no route that neither of the two does.
        let is_clear = if is_plain(path) {
            leads_here(&|prefix| begins_in_any_case(path, prefix))
        } else {
            let loose = loosen(path);
            !has_dot_segment(&loose)
                && [merge(&loose), merge(behind_authority(&loose))]
                    .iter()
                    .all(|read| leads_here(&|prefix| read.starts_with(&merge(&loosen(prefix)))))
        };
        is_clear.then_some(route)
    }

    /// The route of what no other is for.
    pub(super) fn default(&self) -> &Arc<Route> {
        self.0.last().expect("settings always hold the default route")
    }
}

/// Returns whether there is one way to read `path`, except for its case, which Express ignores by default.
fn is_plain(path: &str) -> bool {
    !path.contains(['%', '\\']) && !path.contains("//") && !path.contains("/.")
}

fn begins_in_any_case(path: &str, prefix: &str) -> bool {
    path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// `path` with everything decoded, slashes among it, in lower case, and `\` as `/` (as URL parsers of browsers and of
/// Node have it).
fn loosen(path: &str) -> Vec<u8> {
    let mut loose = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, behind @ ..] = rest {
        let decoded = match behind {
            [high, low, behind @ ..] if *byte == b'%' => hexadecimal(*high, *low).map(|byte| (byte, behind)),
            _ => None,
        };
        let (byte, behind) = decoded.unwrap_or((*byte, behind));
        loose.push(if byte == b'\\' { b'/' } else { byte.to_ascii_lowercase() });
        rest = behind;
    }
    loose
}

/// `//` as `/`.
fn merge(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|byte, before| *byte == b'/' && *before == b'/');
    merged
}

/// The path of what begins like `//name/path`, where `new URL(request.url, base)` takes the name for a host.
fn behind_authority(path: &[u8]) -> &[u8] {
    let name = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    if name < 2 {
        return path;
    }
    let end = path[name..].iter().position(|byte| *byte == b'/').map_or(path.len(), |len| name + len);
    &path[end..]
}

/// Returns whether there is a `.` or `..` between slashes. The parameters that a servlet container sees in a segment, as
/// in `..;x`, hide it from the proxy only.
fn has_dot_segment(loose: &[u8]) -> bool {
    let mut segments = loose.split(|byte| *byte == b'/');
    segments.any(|segment| matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b"..")))
}

/// Returns whether two routes differ in case alone: an app that has both does not ignore case.
fn differ_in_case(one: &Route, other: &Route) -> bool {
    one.host == other.host && one.path.eq_ignore_ascii_case(&other.path)
}

fn hexadecimal(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests;
