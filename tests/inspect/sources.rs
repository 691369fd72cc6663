//! The sources of the page, read as text.

use std::fs;
use std::path::{Path, PathBuf};

fn files() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page");
    let entries = fs::read_dir(folder).expect("the page's folder").flatten();
    let read = |path: PathBuf| fs::read_to_string(&path).map(|text| (path, text)).expect("a text file");
    entries.map(|entry| read(entry.path())).collect()
}

/// A strict policy refuses these at run time; this test finds them before the page is opened.
#[test]
fn nothing_becomes_markup_and_nothing_comes_from_elsewhere() {
    let files = files();
    assert!(files.len() > 3, "{files:?}");
    for (path, text) in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // The name of SVG is an address that is never requested.
        let text = text.replace("http://www.w3.org/2000/svg", "");
        let markup =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "createContextualFragment"];
        let code = ["eval(", "new Function", "javascript:", "setTimeout('", "setTimeout(\""];
        let elsewhere = ["http://", "https://fonts", "//cdn", "@import", "url(", "data:"];
        for wrong in markup.into_iter().chain(code).chain(elsewhere) {
            assert!(!text.contains(wrong), "{name} has {wrong:?}");
        }
        if path.extension().is_some_and(|kind| kind == "html") {
            assert!(!text.contains(" style=") && !text.contains("<style"), "{name} has a style of its own");
            let handler = text.split_whitespace().find(|word| word.starts_with("on") && word.contains('='));
            assert_eq!(handler, None, "{name} has a handler in its markup");
            for script in text.split("<script").skip(1) {
                assert!(script.starts_with(" src=\"/") || script.starts_with(" type=\"module\" src=\"/"), "{script}");
            }
        }
    }
}
