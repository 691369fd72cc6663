//! Any text as proxy.toml: each error has a place inside the text, and an accepted text is printed as a configuration
//! that is accepted again with equal settings.

use std::path::Path;

use pulsegate::config::{Location, from_str_shown};

/// Reads `data` as the text of a file.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // Files that the configuration names are read; none of the machine's own may be.
    if text.contains("token") || text.contains("/dev/") || text.contains("/proc/") {
        return;
    }
    let path = Path::new("/fuzz/proxy.toml");
    let (settings, shown) = match from_str_shown(path, text) {
        Ok(read) => read,
        Err(report) => {
            assert!(!report.findings().is_empty(), "refused without a finding");
            for finding in report.findings() {
                is_inside(&finding.place, text, &finding.message);
            }
            assert!(!report.to_string().is_empty() && !report.one_line().contains('\n'), "{report}");
            return;
        }
    };
    for origins in [false, true] {
        let printed = shown.toml(origins);
        match from_str_shown(path, &printed) {
            Ok((again, shown_again)) => {
                assert_eq!(again, settings, "{printed}");
                assert_eq!(shown_again.toml(false), shown.toml(false), "printed again");
            }
            Err(report) => panic!("what was printed is refused: {report}\n{printed}"),
        }
    }
}

fn is_inside(place: &Location, text: &str, message: &str) {
    match place {
        Location::File { .. } => {}
        Location::Line { line, column, .. } => {
            // After the last line end there is one more, empty, line.
            let lines: Vec<&str> = text.split('\n').collect();
            let found = line.checked_sub(1).and_then(|line| lines.get(line));
            let inside = found.is_some_and(|found| *column >= 1 && *column <= found.chars().count() + 1);
            assert!(inside, "{message}: {line}:{column} of {} lines", lines.len());
        }
        other => panic!("{message}: {other:?} is no place in the text"),
    }
}
