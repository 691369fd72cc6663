//! Overlaps of routes: the route that takes precedence, and the requests that both match.

use std::sync::Arc;

use crate::config::Route;

/// Returns a sentence for each two of `routes` that match the same request; the routes are in the order in which they
/// are tried. The overlap with the path `/` is not mentioned.
pub(super) fn sentences(routes: &[Arc<Route>]) -> Vec<String> {
    let pairs =
        routes.iter().enumerate().flat_map(|(at, first)| routes[at + 1..].iter().map(move |then| (first, then)));
    pairs.filter_map(|(first, then)| sentence(first, then)).collect()
}

/// Returns the route in the form in which it is typed: `app.example/chat/`.
pub(super) fn label(route: &Route) -> String {
    match &route.host {
        Some(host) => format!("{host}{}", route.path),
        None => route.path.to_string(),
    }
}

fn sentence(first: &Route, then: &Route) -> Option<String> {
    if &*then.path == "/" {
        return None;
    }
    let [one, other] = [first, then].map(label);
    if first.host == then.host {
        let nested = first.path.starts_with(&*then.path);
        return nested.then(|| format!("{one} counts before {other}: the longer prefix"));
    }
    // The route that is tried first has the narrower hosts.
    let host = first.host.as_ref()?;
    let why = match &then.host {
        None => "a route for a host counts before one for any",
        Some(wider) if wider.covers(host) => "the narrower host",
        Some(_) => return None,
    };
    if then.path.starts_with(&*first.path) {
        Some(format!("{one} hides {other} on {host}: {why}"))
    } else if first.path.starts_with(&*then.path) {
        Some(format!("{one} counts before {other} on {host}: {why}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use insta::assert_snapshot;

    use super::*;
    use crate::config::{Environment, Overrides, from_str};

    /// Returns the sentences about these routes, each given as `host/path`.
    fn said(routes: &[&str]) -> String {
        let tables = routes.iter().map(|route| {
            let (host, path) = route.split_at(route.find('/').expect("a path"));
            let host = if host.is_empty() { String::new() } else { format!("host = \"{host}\"\n") };
            format!("[[route]]\n{host}path = \"{path}\"\n")
        });
        let text = "[tls]\ncertificate = \"a\"\nprivate_key = \"b\"\n[upstream]\nurl = \"unix:/a\"\n".to_owned();
        let text = text + &tables.collect::<String>();
        let settings = from_str(Path::new("a"), &text, &Environment::default(), &Overrides::default());
        sentences(&settings.unwrap_or_else(|report| panic!("{report}")).routes).join("\n")
    }

    #[test]
    fn two_overlapping_routes_are_described_with_their_precedence() {
        assert_snapshot!(said(&["admin.example/", "/api/"]), @"admin.example/ hides /api/ on admin.example: a route for a host counts before one for any");
        assert_snapshot!(said(&["/api/", "/api/chat/", "/other/"]), @"/api/chat/ counts before /api/: the longer prefix");
        assert_snapshot!(said(&["*.app.example/api/", "a.app.example/api/", "b.example/api/", "/api/v1/", "/api/"]), @"
    a.app.example/api/ hides *.app.example/api/ on a.app.example: the narrower host
    a.app.example/api/ hides /api/v1/ on a.app.example: a route for a host counts before one for any
    a.app.example/api/ hides /api/ on a.app.example: a route for a host counts before one for any
    b.example/api/ hides /api/v1/ on b.example: a route for a host counts before one for any
    b.example/api/ hides /api/ on b.example: a route for a host counts before one for any
    *.app.example/api/ hides /api/v1/ on *.app.example: a route for a host counts before one for any
    *.app.example/api/ hides /api/ on *.app.example: a route for a host counts before one for any
    /api/v1/ counts before /api/: the longer prefix
    ");
        assert_snapshot!(said(&["a.example/api/v1/", "/api/", "b.example/other/"]), @"a.example/api/v1/ counts before /api/ on a.example: a route for a host counts before one for any");
        assert_snapshot!(said(&["*.a.b.example/x/", "*.b.example/x/", "*.c.example/x/"]), @"*.a.b.example/x/ hides *.b.example/x/ on *.a.b.example: the narrower host");
    }

    #[test]
    fn routes_that_are_not_in_each_others_way_are_not_mentioned() {
        assert_eq!(said(&["/a/", "/b/", "x.example/c/", "y.example/c/", "*.example/d/"]), "");
    }
}
