//! Server-sent events (HTML Living Standard §9.2.6), from bytes as they come.

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name; `message` where none is given.
    pub(super) name: String,
    /// Its data lines, joined by line feeds.
    pub(super) data: String,
}

/// A stream of events in the making. Ids and times to retry are left aside: who missed events here asks anew.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// What came and is no whole line yet.
    rest: Vec<u8>,
    name: String,
    data: Vec<String>,
}

/// A line longer than this is none of ours.
const LINE_MAX: usize = 1 << 20;

/// A line without an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Endless;

impl Parser {
    /// Takes bytes in and gives the events that end with them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Event>, Endless> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[from..from + length]).into_owned();
            from += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.rest.drain(..from);
        if self.rest.len() > LINE_MAX { Err(Endless) } else { Ok(events) }
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return (!data.is_empty()).then(|| Event { name, data: data.join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push(value.to_owned()),
            // An empty field is a comment.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_alike_however_they_are_cut() {
        let stream = b": hello\r\nretry: 1000\n\nevent: stats\ndata: {\"at\":1,\ndata: \"open\":2}\r\n\r\nid: 7\ndata:bare\n\ndata: cut off";
        let expected = [("stats", "{\"at\":1,\n\"open\":2}"), ("message", "bare")]
            .map(|(name, data)| Event { name: name.into(), data: data.into() });
        for size in 1..=stream.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> =
                stream.chunks(size).flat_map(|chunk| parser.feed(chunk).expect("short lines")).collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(&vec![b'x'; LINE_MAX]), Ok(vec![]));
        assert_eq!(parser.feed(b"x"), Err(Endless));
    }
}
