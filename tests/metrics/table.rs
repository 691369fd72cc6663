//! The README's table of metrics is the catalogue's.

use std::fs;
use std::path::Path;

use pulsegate::telemetry::metrics::markdown;

const BEGIN: &str = "<!-- metrics:begin -->\n";
const END: &str = "<!-- metrics:end -->";

#[test]
fn the_readme_has_every_metric_as_it_is() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let table = readme.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).map(|(table, _)| table.trim());
    let expected = markdown();
    assert_eq!(table, Some(expected.trim()), "put this between {BEGIN} and {END} in README.md:\n{expected}");
}
