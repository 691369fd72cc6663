//! The keys of the settings in force, block by block.

use crate::config::layers::Layers;
use crate::config::listener::visit_sni_certificate;
use crate::config::listing::{BlockKind, ListedBlock, ListedTable};
use crate::config::path::KeyPath;
use crate::config::schema::Visitor;
use crate::config::sections::{SECTIONS, Sections, visit_route};
use crate::config::settings::Route;

/// The lists of tables.
pub(super) const LISTS: [&str; 2] = ["tls.sni", "route"];

/// Lists every key, in the order of the documented file.
pub(super) fn blocks(layers: &Layers, sections: &Sections) -> Vec<ListedBlock> {
    // A visitor takes every value as one that it may change.
    let mut sections = sections.clone();
    let mut blocks = Vec::new();
    for (header, visit) in SECTIONS {
        let home = [header].into_iter().collect();
        blocks.push(block(layers, header, BlockKind::Section, vec![home], |v| visit(v, &mut sections)));
        if header == "tls" {
            for (at, own) in sections.settings.tls.terminate().into_iter().flat_map(|tls| &tls.sni).enumerate() {
                let home = ["tls", "sni"].into_iter().collect::<KeyPath>().index(at);
                blocks.push(block(layers, "tls.sni", BlockKind::Element, vec![home], |v| {
                    visit_sni_certificate(v, &mut own.clone());
                }));
            }
        }
    }
    for (at, own) in sections.written.iter().enumerate() {
        let home = KeyPath::default().key("route").index(at);
        let homes = vec![home, KeyPath::default()];
        blocks.push(block(layers, "route", BlockKind::Element, homes, |v| visit_route(v, &mut Route::clone(own))));
    }
    blocks
}

fn block(
    layers: &Layers,
    header: &'static str,
    kind: BlockKind,
    homes: Vec<KeyPath>,
    visit: impl FnOnce(&mut Visitor<'_>),
) -> ListedBlock {
    let mut lines = Vec::new();
    visit(&mut Visitor::List(ListedTable { layers, lines: &mut lines, prefix: String::new(), homes }));
    ListedBlock { header, kind, lines }
}
