//! HTTP/1.1 as the simulated agents speak it: connections that stay open, bodies of a known
//! length, and a stream that comes in chunks. A whole client would cost as much as the controller
//! that is measured beside it.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The longest line of an answer's head.
const LONGEST_LINE: usize = 16 << 10;
/// The longest piece of a stream and the longest body.
const LONGEST_BODY: usize = 64 << 20;

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

/// What an answer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The status.
    pub(super) status: u16,
    body: BodyLength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BodyLength {
    Known(usize),
    Chunked,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    /// The body.
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::with_capacity(4 << 10, stream),
            line: Vec::new(),
        })
    }

    /// Whether nothing came since the last answer, as on a connection that the peer left open.
    pub(super) fn is_idle(&self) -> bool {
        let read = self.stream.get_ref().try_read(&mut [0]);
        self.stream.buffer().is_empty()
            && read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        self.send(request).await?;
        let head = self.head().await?;
        self.body(head).await
    }

    pub(super) async fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(request).await
    }

    pub(super) async fn head(&mut self) -> Result<Head> {
        let line = self.line().await?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| malformed(format!("expected a status line, found {line:?}")))?;
        let mut body = BodyLength::Known(0);
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else {
                return Ok(Head { status, body });
            };
            if name.eq_ignore_ascii_case("content-length") {
                let length = value.trim().parse().ok();
                let length = length.filter(|length| *length <= LONGEST_BODY);
                body = BodyLength::Known(length.ok_or_else(|| malformed(line.to_owned()))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                body = BodyLength::Chunked;
            }
        }
    }

    pub(super) async fn body(&mut self, head: Head) -> Result<Answer> {
        let mut body = Vec::new();
        match head.body {
            BodyLength::Known(length) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body).await?;
            }
            BodyLength::Chunked => while self.chunk(&mut body).await? {},
        }
        let status = head.status;
        Ok(Answer { status, body })
    }

    /// Reads the next piece of a stream to the end of `into`; whether there was one more.
    pub(super) async fn chunk(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let line = self.line().await?;
        let length = usize::from_str_radix(line.trim(), 16).ok();
        let length = length.filter(|length| *length <= LONGEST_BODY);
        let length = length
            .ok_or_else(|| malformed(format!("expected a chunk's length, found {line:?}")))?;
        let start = into.len();
        into.resize(start + length + 2, 0);
        self.stream.read_exact(&mut into[start..]).await?;
        into.truncate(start + length);
        Ok(length > 0)
    }

    /// The next line without its end.
    async fn line(&mut self) -> Result<&str> {
        self.line.clear();
        let limit = u64::try_from(LONGEST_LINE).unwrap_or(u64::MAX);
        let mut limited = (&mut self.stream).take(limit);
        limited.read_until(b'\n', &mut self.line).await?;
        let Some(line) = self.line.strip_suffix(b"\r\n") else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        std::str::from_utf8(line).map_err(|error| malformed(error.to_string()))
    }
}

fn malformed(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}

/// A request's text.
pub(super) fn request(
    (method, path): (&str, &str),
    token: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nhost: controller\r\nauthorization: Bearer {token}\r\n"
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        let length = body.len();
        text.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {length}\r\n"
        ));
    }
    text.push_str("\r\n");
    let mut request = text.into_bytes();
    request.extend_from_slice(body.unwrap_or_default());
    request
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What a connection makes of `bytes`, sent in pieces of `size`.
    fn answers<T>(
        bytes: &'static [u8],
        size: usize,
        read: impl AsyncFn(&mut Connection) -> T,
    ) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serve = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                for piece in bytes.chunks(size) {
                    stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let mut connection = Connection::open(address).await.unwrap();
            let read = read(&mut connection).await;
            serve.await.unwrap();
            read
        })
    }

    #[test]
    fn two_answers_on_one_connection_are_read_however_they_are_cut() {
        let bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 409 Conflict\r\n\
                      transfer-encoding: chunked\r\n\r\n3\r\nx\ny\r\n1\r\nz\r\n0\r\n\r\n";
        for size in [1, 7, bytes.len()] {
            let (first, second) = answers(bytes, size, async |connection| {
                let first = connection.head().await.unwrap();
                let first = connection.body(first).await.unwrap();
                let second = connection.head().await.unwrap();
                (first, connection.body(second).await.unwrap())
            });
            assert_eq!((first.status, &*first.body), (200, &b"ab"[..]), "{size}");
            assert_eq!(
                (second.status, &*second.body),
                (409, &b"x\nyz"[..]),
                "{size}"
            );
        }
    }

    #[test]
    fn a_connection_that_the_peer_closed_is_not_idle() {
        let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        answers(bytes, bytes.len(), async |connection| {
            assert!(connection.is_idle(), "nothing has come yet");
            let head = connection.head().await.unwrap();
            connection.body(head).await.unwrap();
            // The peer closes it after its one answer.
            let stream = connection.stream.get_ref();
            while connection.is_idle() {
                stream.readable().await.unwrap();
            }
        });
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bytes in [
            &b"SSH-2.0-x\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"",
        ] {
            let head = answers(bytes, 1, async |connection| connection.head().await);
            assert!(
                head.is_err(),
                "{:?} was read",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
