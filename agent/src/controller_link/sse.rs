//! Server-sent events, as far as the controller uses them (WHATWG HTML §9.2.6).

/// The longest event that is taken: a desired state of thousands of real servers fits.
const MAX_EVENT: usize = 8 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Event {
    /// Its type; `message` where the stream names none.
    pub(super) name: String,
    /// The last id that the stream gave.
    pub(super) id: String,
    /// Its data lines.
    pub(super) data: Vec<u8>,
}

/// An event grew beyond its bound.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {MAX_EVENT} bytes")]
pub(super) struct TooLong;

/// Puts events together from the pieces in which they arrive.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    last_was_cr: bool,
}

impl Parser {
    /// Takes a piece of the stream; answers the events that it completes.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for &byte in piece {
            let after_cr = std::mem::replace(&mut self.last_was_cr, byte == b'\r');
            match byte {
                // A line ends at CR LF, LF or CR.
                b'\n' if after_cr => {}
                b'\n' | b'\r' => events.extend(self.end_of_line()),
                _ => {
                    self.line.push(byte);
                    if self.line.len() + self.event.data.len() > MAX_EVENT {
                        return Err(TooLong);
                    }
                }
            }
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            b"id" => self.event.id = String::from_utf8_lossy(value).into_owned(),
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.event.data.extend_from_slice(value);
                self.has_data = true;
            }
            // A comment (an empty field) is a sign of life; `retry` is our own decision.
            _ => {}
        }
        None
    }

    /// A blank line ends an event; without data there is none.
    fn dispatch(&mut self) -> Option<Event> {
        let id = self.event.id.clone();
        let mut event = std::mem::take(&mut self.event);
        self.event.id = id;
        if !std::mem::take(&mut self.has_data) {
            return None;
        }
        if event.name.is_empty() {
            "message".clone_into(&mut event.name);
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(events: &[Event]) -> Vec<String> {
        let text = |event: &Event| {
            let data = String::from_utf8_lossy(&event.data);
            format!("{}|{}|{data}", event.name, event.id)
        };
        events.iter().map(text).collect()
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let stream = ": ping\n\nevent: desired\nid: e1:5\ndata: {\"a\":\ndata: 1}\n\n\
                      retry: 10\r\nevent:desired\r\ndata:x\r\n\r\n\ndata\n\nid: e1:6\n\n";
        let expected = [
            "desired|e1:5|{\"a\":\n1}",
            "desired|e1:5|x",
            "message|e1:5|",
        ];
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in stream.as_bytes().chunks(size) {
                events.extend(parser.feed(piece).unwrap());
            }
            assert_eq!(texts(&events), expected, "in pieces of {size} bytes");
        }
    }

    #[test]
    fn an_endless_event_is_cut_off() {
        let mut parser = Parser::default();
        let piece = vec![b'a'; MAX_EVENT / 4];
        let result: Vec<_> = (0..5).map(|_| parser.feed(&piece)).collect();
        assert_eq!(result[3], Ok(Vec::new()));
        assert_eq!(result[4], Err(TooLong));
    }
}
