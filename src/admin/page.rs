//! The files of the inspect page, embedded in the program; the page loads nothing else.

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue, X_FRAME_OPTIONS};
use hyper::{Response, StatusCode};

use super::response::{Body, content};

/// The Content-Security-Policy: only these files are loaded, and no other page may frame them.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Embeds files of `page/`, each served at `/` and its name.
macro_rules! files {
    ($($kind:ident $name:literal),* $(,)?) => {
        [$(File { path: concat!("/", $name), kind: $kind, text: include_str!(concat!("page/", $name)) }),*]
    };
}

const FILES: &[File] = &files![
    HTML "inspect.html",
    CSS "inspect.css",
    SVG "icon.svg",
    SCRIPT "columns.js",
    SCRIPT "details.js",
    SCRIPT "dialogs.js",
    SCRIPT "dom.js",
    SCRIPT "feed.js",
    SCRIPT "format.js",
    SCRIPT "inspect.js",
    SCRIPT "lists.js",
    SCRIPT "overview.js",
    SCRIPT "plot.js",
    SCRIPT "sessions.js",
    SCRIPT "table.js",
    SCRIPT "theme.js",
];

/// Returns the file at `path`; `/` is the page itself.
pub(super) fn at(path: &str) -> Option<File> {
    let path = if path == "/" { "/inspect.html" } else { path };
    FILES.iter().copied().find(|file| file.path == path)
}

impl File {
    pub(super) fn answer(self) -> Response<Body> {
        let mut response = content(StatusCode::OK, HeaderValue::from_static(self.kind), self.text);
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/page");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).expect("the folder is readable").flatten() {
            let name = entry.file_name().into_string().expect("a name");
            assert!(at(&format!("/{name}")).is_some(), "{name} is not in FILES");
            seen += 1;
        }
        assert_eq!(seen, FILES.len());
        assert_eq!(at("/").map(|file| file.path), Some("/inspect.html"));
        assert_eq!(at("/page.rs"), None);
    }
}
