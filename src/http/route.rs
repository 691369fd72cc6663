//! Which route a path takes.

use std::borrow::Cow;
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

    /// The route for every host and path.
    pub(super) fn default_route(&self) -> &Arc<Route> {
        self.0.last().expect("settings always hold the default route")
    }

    /// The route of a request for `path` on `host`, the authority that it names if any: of the routes for exactly this
    /// host, else of those for a wildcard that it falls under, else of those for any, the one with the longest prefix.
    /// Both are normalised for the comparison only; what goes to the app are the bytes that the client sent.
    pub(super) fn find(&self, host: Option<&str>, path: &str) -> &Arc<Route> {
        let path = normalise(path);
        let host = host.map(bare_host);
        let fits = |route: &&Arc<Route>| {
            let is_host = match (&route.host, &host) {
                (None, _) => true,
                (Some(pattern), Some(host)) => pattern.matches(host),
                (Some(_), None) => false,
            };
            is_host && path.starts_with(&*route.path)
        };
        let (default, others) = self.0.split_last().expect("settings always hold the default route");
        others.iter().find(fits).unwrap_or(default)
    }
}

/// The path that `path` is equivalent to (RFC 3986 §6.2.2.2, §6.2.2.3): unreserved characters decoded, repeated
/// slashes merged, dot segments resolved. Without it `/api/../admin`, `//admin` and `/%61dmin` would dodge the rules
/// of `/admin`.
fn normalise(path: &str) -> Cow<'_, str> {
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = decode_unreserved(path);
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    let mut normal = String::with_capacity(decoded.len() + 1);
    for segment in &segments {
        normal.push('/');
        normal.push_str(segment);
    }
    // What names a folder goes on naming a folder.
    if normal.is_empty() || ["/", "/.", "/.."].iter().any(|end| decoded.ends_with(end)) {
        normal.push('/');
    }
    Cow::Owned(normal)
}

fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match code {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
                rest = &rest[at + 3..];
            }
            _ => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPattern, Target, Upstream};

    fn app() -> Arc<Upstream> {
        Arc::new(Upstream::at(Target::Unix("/app.sock".into())))
    }

    fn routes(paths: &[&str]) -> Routes {
        let route = |path: &&str| Arc::new(Route { path: (*path).into(), ..Route::to(app()) });
        Routes::new(paths.iter().map(route).collect())
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = routes(&["/api/chat/", "/api/", "/"]);
        for (path, expected) in [
            ("/api/chat/room", "/api/chat/"),
            ("/api/chat", "/api/"),
            ("/api/", "/api/"),
            ("/apix", "/"),
            ("/", "/"),
            ("*", "/"),
        ] {
            assert_eq!(&*routes.find(None, path).path, expected, "{path}");
        }
    }

    /// The routes `host/path`, which stand in the order in which they are tried.
    fn hosted(routes: &[&str]) -> Routes {
        let route = |route: &&str| {
            let (host, path) = route.split_at(route.find('/').expect("a path"));
            let host = match host.strip_prefix('*') {
                Some(suffix) => Some(HostPattern::Subdomains(suffix.into())),
                None if host.is_empty() => None,
                None => Some(HostPattern::Exact(host.into())),
            };
            Arc::new(Route { path: path.into(), host, ..Route::to(app()) })
        };
        Routes::new(routes.iter().map(route).collect())
    }

    /// The route that a request takes, as [`hosted`] has it.
    fn taken(routes: &Routes, host: Option<&str>, path: &str) -> String {
        let route = routes.find(host, path);
        format!("{}{}", route.host.as_ref().map(HostPattern::to_string).unwrap_or_default(), route.path)
    }

    #[test]
    fn a_host_counts_before_a_wildcard_before_any() {
        let routes =
            hosted(&["a.example/api/", "a.example/", "*.b.a.example/", "*.a.example/x/", "/api/v1/", "/api/", "/"]);
        for (host, path, expected) in [
            ("a.example", "/api/v1/users", "a.example/api/"),
            ("a.example", "/other", "a.example/"),
            ("c.a.example", "/x/y", "*.a.example/x/"),
            ("c.a.example", "/api/v1/users", "/api/v1/"),
            ("c.b.a.example", "/x/y", "*.b.a.example/"),
            ("b.a.example", "/x/y", "*.a.example/x/"),
            ("b.a.example", "/y", "/"),
            ("other.example", "/api/x", "/api/"),
            ("a.example.evil", "/", "/"),
            ("evila.example", "/", "/"),
            ("", "/", "/"),
        ] {
            assert_eq!(taken(&routes, Some(host), path), expected, "{host} {path}");
        }
        assert_eq!(taken(&routes, None, "/api/v1/users"), "/api/v1/", "no host is no host's");
    }

    #[test]
    fn no_spelling_of_a_host_dodges_its_route() {
        let routes = hosted(&["a.example/", "[::1]/", "/"]);
        for host in ["a.example", "A.EXAMPLE", "a.example:8443", "a.example.", "a.Example.:1", "a.example:"] {
            assert_eq!(taken(&routes, Some(host), "//x/../y"), "a.example/", "{host}");
        }
        for (host, expected) in [("[::1]:8443", "[::1]/"), ("[::1]", "[::1]/"), ("[::2]", "/"), ("::1", "/")] {
            assert_eq!(taken(&routes, Some(host), "/"), expected, "{host}");
        }
    }

    #[test]
    fn no_spelling_dodges_a_route() {
        let routes = routes(&["/admin/", "/"]);
        for path in [
            "/admin/x",
            "//admin/x",
            "/admin//x",
            "/%61dmin/x",
            "/%61%64%6D%69%6e/",
            "/public/../admin/x",
            "/public/%2e%2E/admin/x",
            "/./admin/./x",
            "/../../admin/x",
            "/admin/.",
            "/admin/x/..",
        ] {
            assert_eq!(&*routes.find(None, path).path, "/admin/", "{path}");
        }
        for path in ["/admin/../x", "/x/admin/", "/%2561dmin/x", "/admin%2Fx", "/%", "/%6", "/%zz", "/%+1"] {
            assert_eq!(&*routes.find(None, path).path, "/", "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        assert!(matches!(normalise("/socket.io/"), Cow::Borrowed("/socket.io/")));
        assert_eq!(normalise("/a/b/.."), "/a/");
        assert_eq!(normalise("/.."), "/");
        assert_eq!(normalise("/%20b"), "/%20b");
    }
}
