//! `pulsegate dev`: its transcript at the top of the README, and that of its client in `deploy/OPERATIONS.md`.

use crate::program::Program;
use crate::{blocks, paper, pulsegate, readme};

/// A running `pulsegate dev`.
pub(crate) struct Dev {
    program: Program,
    pub(crate) url: String,
    pub(crate) authority: String,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let mut program = Program::start(&mut pulsegate("dev"));
        let last_word = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
        let url = last_word(&program.line("  WebSocket  wss://"));
        let authority =
            program.line("  CA  ").split_whitespace().nth(1).unwrap_or_default().trim_end_matches(',').to_owned();
        program.line("Ctrl-C ends it");
        Self { program, url, authority }
    }

    pub(crate) fn end(mut self) {
        self.program.signal("INT");
        assert!(self.program.end().success());
    }
}

/// Reproduces both transcripts: a client connects, is pinged, and is stopped as Ctrl-Z stops it. Every line of the
/// transcripts must have been printed, apart from numbers.
pub(crate) fn dev_leads_to_its_own_transcript() {
    let mut dev = Dev::start();
    let mut ping = Program::start(&mut pulsegate(&format!("ping --interval 1m --ca {} {}", dev.authority, dev.url)));
    ping.line("answered, ");
    ping.signal("STOP");
    dev.program.line("ws.close");
    ping.signal("CONT");
    ping.end();
    dev.program.signal("INT");
    let end = dev.program.end();
    assert!(end.success(), "{end}");

    let lines = [dev.program.transcript(), ping.transcript()].map(|text| text.lines().map(shape).collect::<Vec<_>>());
    let printed = lines.concat();
    let mut shown = 0;
    let mut transcripts = blocks(&readme(), "console");
    // tests/operate compares those of the other commands.
    let of_ping = |block: &String| block.starts_with("$ pulsegate ping");
    transcripts.extend(blocks(&paper("deploy/OPERATIONS.md"), "console").into_iter().filter(of_ping));
    assert_eq!(transcripts.len(), 2, "{transcripts:?}");
    for line in transcripts.iter().flat_map(|block| block.lines()).filter(|line| !line.starts_with("$ ")) {
        let found = printed.iter().any(|printed| shows(line, printed));
        assert!(found, "the paper shows\n{}\nbut what was printed is\n{}", shape(line), printed.join("\n"));
        shown += 1;
    }
    assert!(shown > 10, "only {shown} lines of transcript");
}

/// Returns whether a line of a transcript is this one, in [`shape`]; each `…` stands for any text.
fn shows(line: &str, printed: &str) -> bool {
    let Some((first, rest)) = line.split_once('…') else { return shape(line) == printed };
    let Some(mut printed) = printed.strip_prefix(&shape(first)) else { return false };
    for part in rest.split('…') {
        let part = shape(part);
        let Some(at) = printed.find(&part) else { return false };
        printed = &printed[at + part.len()..];
    }
    // A line that is not cut off must match to its end.
    rest.ends_with('…') || printed.is_empty()
}

/// Returns the line without everything that differs from run to run: numbers, hexadecimal names, and the blanks that
/// align them.
fn shape(line: &str) -> String {
    let mut shape = String::new();
    for word in line.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or(("", word));
        if name == "conn_id" {
            shape += "conn_id=# ";
            continue;
        }
        if !name.is_empty() {
            shape = shape + name + "=";
        }
        // These are the same in every run, and wrong if they are not.
        if ["code", "missed", "seq"].contains(&name) {
            shape = shape + value + " ";
            continue;
        }
        let mut in_number = false;
        for character in value.chars() {
            let digit = character.is_ascii_digit() || (in_number && character == '.');
            if !digit {
                shape.push(character);
            } else if !in_number {
                shape.push('#');
            }
            in_number = digit;
        }
        shape.push(' ');
    }
    shape.trim_end().to_owned()
}
