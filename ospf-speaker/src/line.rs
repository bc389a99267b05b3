//! One JSON object a line: the framing of the control socket.

use isopath_api::speaker::{MAX_LINE, Reply, Request};

/// A buffer larger than this is given back when it is empty.
const KEPT_CAPACITY: usize = 16 << 10;

/// The peer sent more than [`MAX_LINE`] bytes without an end of line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a line of at most {MAX_LINE} bytes")]
pub struct LineTooLong;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// Bytes at the start that are known to contain no end of line.
    searched: usize,
}

impl LineReader {
    /// Bytes from the peer. Take the lines out before the next ones.
    ///
    /// # Errors
    /// When the line that has begun is too long; the stream is then of no more use.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LineTooLong> {
        let begun = bytes.iter().rposition(|byte| *byte == b'\n');
        let open = match begun {
            Some(end) => bytes.len() - end - 1,
            None => self.buffer.len() + bytes.len(),
        };
        if open > MAX_LINE {
            return Err(LineTooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line, without its end.
    pub fn next_line(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.get(self.searched..)?;
        let Some(found) = rest.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line: Vec<u8> = self.buffer.drain(..=self.searched + found).collect();
        self.searched = 0;
        line.pop();
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = Vec::new();
        }
        Some(line)
    }
}

/// Reads a request.
///
/// # Errors
/// The reply that says what is wrong with the line.
pub fn parse_request(line: &[u8]) -> Result<Request, Reply> {
    serde_json::from_slice(line).map_err(|error| Reply::Error {
        message: format!("expected a request as one JSON object a line: {error}"),
    })
}

/// Appends a reply and its end of line, or an error where that line would be too long.
pub fn write_reply(out: &mut Vec<u8>, reply: &Reply) {
    let start = out.len();
    serialize(out, reply);
    let length = out.len() - start;
    if length > MAX_LINE {
        out.truncate(start);
        let message = format!("the answer has {length} bytes, a line at most {MAX_LINE}");
        serialize(out, &Reply::Error { message });
    }
    out.push(b'\n');
}

fn serialize(out: &mut Vec<u8>, reply: &Reply) {
    serde_json::to_writer(out, reply).expect("a reply has text keys and writes to memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(reader: &mut LineReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_line())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let text = b"{\"request\":\"status\"}\n\nlast\nopen";
        for size in 1..text.len() {
            let mut reader = LineReader::default();
            let mut found = Vec::new();
            for chunk in text.chunks(size) {
                reader.push(chunk).unwrap();
                found.extend(lines(&mut reader));
            }
            assert_eq!(found, ["{\"request\":\"status\"}", "", "last"], "{size}");
        }
    }

    #[test]
    fn an_endless_line_is_refused_and_a_long_one_is_not() {
        let mut reader = LineReader::default();
        let long = vec![b'x'; MAX_LINE];
        reader.push(&long).unwrap();
        assert_eq!(reader.next_line(), None);
        assert_eq!(reader.push(b"x"), Err(LineTooLong));
        reader.push(b"\n").unwrap();
        assert_eq!(reader.next_line().unwrap().len(), MAX_LINE);
    }

    #[test]
    fn a_line_that_is_no_request_is_answered_with_what_is_wrong() {
        assert_eq!(
            parse_request(br#"{"request":"status"}"#),
            Ok(Request::Status)
        );
        for (line, words) in [
            (&b"status"[..], "expected value"),
            (br#"{"request":"stats"}"#, "stats"),
            (br#"{"request":"announce","set":[]}"#, "hold_ms"),
            (
                br#"{"request":"announce","set":[{"vip":"10.99.0.0/24","cost":1}],"hold_ms":1}"#,
                "10.99.0.0/24",
            ),
        ] {
            let Err(Reply::Error { message }) = parse_request(line) else {
                panic!("{line:?} was read");
            };
            assert!(message.contains(words), "{message} does not say {words}");
        }
    }

    #[test]
    fn an_answer_longer_than_a_line_is_an_error() {
        let mut out = b"before".to_vec();
        let message = "x".repeat(MAX_LINE);
        write_reply(&mut out, &Reply::Error { message });
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("before{") && text.ends_with("}\n"));
        assert!(text.len() < 200, "{} bytes", text.len());
        assert!(text.contains("the answer has"), "{text}");
    }

    #[test]
    fn a_reply_is_one_line() {
        let mut out = Vec::new();
        let message = "two\nlines".to_owned();
        write_reply(&mut out, &Reply::Error { message });
        write_reply(&mut out, &Reply::Ok);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert_eq!(
            serde_json::from_str::<Reply>(text.lines().last().unwrap()).unwrap(),
            Reply::Ok
        );
    }
}
