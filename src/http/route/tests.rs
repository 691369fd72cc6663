//! Tests of the routing, ambiguous paths among them.

use proptest::prelude::*;

use super::*;
use crate::config::{HostPattern, UpstreamSettings, UpstreamTarget};

fn route(host: Option<HostPattern>, path: &str) -> Arc<Route> {
    let app = Arc::new(UpstreamSettings::at(UpstreamTarget::Unix("/app.sock".into())));
    Arc::new(Route { path: path.into(), host, ..Route::to(app) })
}

fn routes(paths: &[&str]) -> Routes {
    Routes::new(paths.iter().map(|path| route(None, path)).collect())
}

/// The prefix of the route that `path` takes; `?` where it takes none.
fn taken<'a>(routes: &'a Routes, path: &str) -> &'a str {
    routes.find(None, path).map_or("?", |route| &*route.path)
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
        ("", "/"),
    ] {
        assert_eq!(taken(&routes, path), expected, "{path}");
    }
}

/// The routes `host/path`, which stand in the order in which they are tried.
fn hosted(routes: &[&str]) -> Routes {
    let route = |text: &&str| {
        let (host, path) = text.split_at(text.find('/').expect("a path"));
        let host = match host.strip_prefix('*') {
            Some(suffix) => Some(HostPattern::Subdomains(suffix.into())),
            None if host.is_empty() => None,
            None => Some(HostPattern::Exact(host.into())),
        };
        route(host, path)
    };
    Routes::new(routes.iter().map(route).collect())
}

/// The route that a request takes, as [`hosted`] has it.
fn taken_at(routes: &Routes, host: Option<&str>, path: &str) -> String {
    let Some(route) = routes.find(host, path) else { return "?".to_owned() };
    format!("{}{}", route.host.as_ref().map(HostPattern::to_string).unwrap_or_default(), route.path)
}

#[test]
fn a_host_counts_before_a_wildcard_before_any() {
    let routes =
        hosted(&["a.example/api/", "a.example/", "*.b.a.example/", "*.a.example/x/", "/api/v1/", "/api/", "/"]);
    for (host, path, expected) in [
        ("a.example", "/api/v1/users", "a.example/api/"),
        ("a.example", "/other", "a.example/"),
        ("a.example", "*", "a.example/"),
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
        assert_eq!(taken_at(&routes, Some(host), path), expected, "{host} {path}");
    }
    assert_eq!(taken_at(&routes, None, "/api/v1/users"), "/api/v1/", "no host is no host's");
}

#[test]
fn no_spelling_of_a_host_dodges_its_route() {
    let routes = hosted(&["a.example/", "[::1]/", "/"]);
    for host in ["a.example", "A.EXAMPLE", "a.example:8443", "a.example.", "a.Example.:1", "a.example:"] {
        assert_eq!(taken_at(&routes, Some(host), "/x"), "a.example/", "{host}");
    }
    for (host, expected) in [("[::1]:8443", "[::1]/"), ("[::1]", "[::1]/"), ("[::2]", "/"), ("::1", "/")] {
        assert_eq!(taken_at(&routes, Some(host), "/"), expected, "{host}");
    }
}

#[test]
fn where_there_is_one_route_no_spelling_matters() {
    let routes = hosted(&["a.example/", "*.a.example/", "/api/", "/"]);
    let path = "//x/../api%2F/./%61pi/\\";
    assert_eq!(taken_at(&routes, Some("a.example"), path), "a.example/");
    assert_eq!(taken_at(&routes, Some("b.a.example"), path), "*.a.example/");
    assert_eq!(taken_at(&routes, Some("b.example"), path), "?");
}

#[test]
fn no_spelling_dodges_a_route() {
    let routes = routes(&["/admin/", "/"]);
    for path in [
        // To a browser's URL parser, to Express, to a file system, to a servlet container.
        "//admin/x",
        "///admin/x",
        "//any.example/admin/x",
        "/\\any.example/admin/x",
        "\\\\any.example\\admin\\x",
        "/\\admin/x",
        "/admin\\x",
        "/admin%5Cx",
        "/admin%2Fx",
        "/admin%2fx",
        "/%2Fadmin/x",
        "/%61dmin/x",
        "/%61%64%6D%69%6e/",
        "/Admin/x",
        "/ADMIN%2Fx",
        "/%41dmin/x",
        // Dots, with whatever between and around them.
        "/public/../admin/x",
        "/public/%2e%2E/admin/x",
        "/public/.%2e/admin/x",
        "/public/..%2Fadmin/x",
        "/public%2F..%2Fadmin%2Fx",
        "/public/..\\admin/x",
        "/public%5C..%5Cadmin%5Cx",
        "/public/..;a=b/admin/x",
        "/./admin/x",
        "/../../admin/x",
        "/admin/../x",
        "/admin/..",
        "/admin/.",
        "/admin/%2e%2e/x",
        "/admin/..%2f..%2f",
    ] {
        assert_eq!(taken(&routes, path), "?", "{path}");
    }
}

#[test]
fn what_is_read_alike_everywhere_passes_in_any_spelling() {
    let routes = routes(&["/admin/", "/"]);
    for path in [
        "/admin/x",
        "/admin//x",
        "/admin/a%2Fb",
        "/admin/a%5Cb\\c",
        "/admin/%61",
        "/admin/.well-known/..x",
        "/admin/%2561",
    ] {
        assert_eq!(taken(&routes, path), "/admin/", "{path}");
    }
    for path in [
        "/x/admin/",
        "/@scope%2Fname",
        "/files//a",
        "/files/%20b",
        "/adminx%2Fy",
        "/.well-known/acme",
        "/%",
        "/%6",
        "/%zz",
        "/%+1",
        "/%252Fadmin/",
        "/%2561dmin/x",
        "/caf%C3%A9",
    ] {
        assert_eq!(taken(&routes, path), "/", "{path}");
    }
}

#[test]
fn an_encoded_prefix_is_met_by_its_own_spelling() {
    let routes = routes(&["/caf%C3%A9/", "/"]);
    assert_eq!(taken(&routes, "/caf%C3%A9/x"), "/caf%C3%A9/");
    assert_eq!(taken(&routes, "/other"), "/");
}

#[test]
fn routes_that_differ_in_case_are_kept_apart() {
    let routes = routes(&["/Chat/", "/chat/", "/"]);
    assert_eq!(taken(&routes, "/Chat/x"), "/Chat/");
    assert_eq!(taken(&routes, "/chat/x"), "/chat/");
    assert_eq!(taken(&routes, "/CHAT/x"), "?");
}

/// Normalises a path as apps do, in several orders.
fn misread(path: &str, steps: &[u8]) -> String {
    let mut path = path.to_owned();
    for step in steps {
        path = match step {
            0 => path.replace('\\', "/"),
            1 => path.replace("%2F", "/").replace("%2f", "/"),
            2 => path.replace("%5C", "\\").replace("%5c", "\\"),
            3 => path.replace("%61", "a").replace("%2E", ".").replace("%2e", "."),
            4 => {
                while path.contains("//") {
                    path = path.replace("//", "/");
                }
                path
            }
            5 => path.to_ascii_lowercase(),
            6 => match path.strip_prefix("//").map(|rest| rest.trim_start_matches('/')) {
                Some(rest) => rest.find('/').map_or(String::new(), |end| rest[end..].to_owned()),
                None => path,
            },
            _ => {
                let mut kept: Vec<&str> = Vec::new();
                for segment in path.split('/').skip(1) {
                    match segment {
                        "." => {}
                        ".." => drop(kept.pop()),
                        segment => kept.push(segment),
                    }
                }
                format!("/{}", kept.join("/"))
            }
        };
    }
    path
}

proptest! {
    #[test]
    fn no_app_sees_a_path_of_another_route(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "/", "/", "\\", "%2F", "%5C", "%5c", "%2f", ".", "..", "%2e", "%2E", "a", "A", "%61", "b", "a/", "/a/", "//",
        ]), 0..9),
        steps in prop::collection::vec(0_u8..8, 0..7),
    ) {
        let routes = routes(&["/a/b/", "/a/", "/"]);
        let path = format!("/{}", pieces.concat());
        let taken = taken(&routes, &path);
        if taken != "?" {
            let seen = misread(&path, &steps);
            let wants = ["/a/b/", "/a/", "/"].into_iter().find(|prefix| seen.starts_with(prefix)).unwrap_or("/");
            prop_assert_eq!(taken, wants, "{} is {} to the app", path, seen);
        }
    }
}
