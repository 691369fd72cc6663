//! An incremental parser of server-sent events (HTML Living Standard §9.2.6).

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Its name; `message` by default.
    pub(super) name: String,
    /// Its data lines, joined by line feeds.
    pub(super) data: String,
}

/// The parser of a stream of events. Ids and retry times are ignored: missed events are not requested again here.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The bytes of an incomplete line.
    rest: Vec<u8>,
    name: String,
    data: Vec<String>,
}

/// The longest line that is accepted, in bytes.
const LINE_MAX: usize = 1 << 20;

/// The error of a line longer than the limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LineTooLong;

impl Parser {
    /// Parses bytes, and returns the events that they complete.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, LineTooLong> {
        self.rest.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut from = 0;
        while let Some(length) = self.rest[from..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[from..from + length]).into_owned();
            from += length + 1;
            events.extend(self.line(line.trim_end_matches('\r')));
        }
        self.rest.drain(..from);
        if self.rest.len() > LINE_MAX { Err(LineTooLong) } else { Ok(events) }
    }

    fn line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return (!data.is_empty()).then(|| SseEvent { name, data: data.join("\n") });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push(value.to_owned()),
            // A field without a name is a comment.
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
            .map(|(name, data)| SseEvent { name: name.into(), data: data.into() });
        for size in 1..=stream.len() {
            let mut parser = Parser::default();
            let events: Vec<SseEvent> =
                stream.chunks(size).flat_map(|chunk| parser.feed(chunk).expect("short lines")).collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_refused() {
        let mut parser = Parser::default();
        assert_eq!(parser.feed(&vec![b'x'; LINE_MAX]), Ok(vec![]));
        assert_eq!(parser.feed(b"x"), Err(LineTooLong));
    }
}
