//! Compiled under `#[cfg(test)]` only.

use proptest::prelude::*;

use super::*;
use crate::config::{HostPattern, Target, Upstream};

fn route(host: Option<HostPattern>, path: &str) -> Arc<Route> {
    let app = Arc::new(Upstream::at(Target::Unix("/app.sock".into())));
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

#[test]
fn a_host_of_ones_own_comes_first() {
    let exact = HostPattern::Exact("app.example".into());
    let below = HostPattern::Subdomains(".app.example".into());
    let routes = Routes::new(vec![
        route(Some(exact), "/"),
        route(Some(below.clone()), "/chat/"),
        route(Some(below), "/"),
        route(None, "/chat/"),
        route(None, "/"),
    ]);
    for (host, path, index) in [
        (Some("app.example"), "/chat/", 0),
        (Some("App.Example.:8443"), "/chat/", 0),
        (Some("a.app.example"), "/chat/", 1),
        (Some("a.app.example"), "/other", 2),
        (Some("other.example"), "/chat/", 3),
        (Some("other.example"), "/other", 4),
        (None, "/chat/", 3),
    ] {
        let found = routes.find(host, path).expect("it can be told");
        assert!(Arc::ptr_eq(found, &routes.0[index]), "{host:?} {path}: {found:?}");
    }
    // With one route for a host there is nothing to tell apart.
    let one = Routes::new(vec![route(None, "/")]);
    assert_eq!(taken(&one, "/a/../b%2Fc//d"), "/");
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

/// What an app makes of a path: some of the things that apps do, in some order.
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
