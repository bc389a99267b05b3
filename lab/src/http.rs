//! As much of an HTTP client as a lab needs: one request, one connection, one answer.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net;
use rustix::net::sockopt::{self, Timeout};

/// How long one connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// A request.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, with a query where there is one.
    pub path: &'a str,
    /// The bearer token to send.
    pub token: Option<&'a str>,
    /// A JSON body to send.
    pub body: Option<&'a str>,
    /// What of the resource it changes, as `If-Match` has it.
    pub if_match: Option<&'a str>,
    /// How long to wait for the connection and for each part of the answer.
    pub timeout: Duration,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks for a path.
///
/// # Errors
/// See [`send`].
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    send(address, &plain(path))
}

/// Asks for a path from a port of the client's own choice, which it may have used just before.
///
/// # Errors
/// The port is in use; else as [`send`].
pub fn get_from(port: u16, address: SocketAddrV4, path: &str) -> Result<Answer> {
    let request = plain(path);
    let connect = || -> rustix::io::Result<TcpStream> {
        let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_socket_timeout(&socket, Timeout::Send, Some(request.timeout))?;
        net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
        net::connect(&socket, &address)?;
        Ok(socket.into())
    };
    let stream = connect().with_context(|| format!("connecting to {address} from port {port}"))?;
    exchange(stream, address.into(), &request)
}

fn plain(path: &str) -> Request<'_> {
    Request {
        method: "GET",
        path,
        token: None,
        body: None,
        if_match: None,
        timeout: SILENCE,
    }
}

/// Sends a request from the network that the calling thread is in. It says HTTP/1.0, so that
/// the body of the answer ends with the connection and never comes in chunks.
///
/// # Errors
/// There is no connection, it breaks, or the answer is not HTTP.
pub fn send(address: SocketAddr, request: &Request<'_>) -> Result<Answer> {
    let stream = TcpStream::connect_timeout(&address, request.timeout)
        .with_context(|| format!("connecting to {address}"))?;
    exchange(stream, address, request)
}

fn exchange(mut stream: TcpStream, address: SocketAddr, request: &Request<'_>) -> Result<Answer> {
    let Request {
        method,
        path,
        token,
        body,
        if_match,
        timeout,
    } = *request;
    stream
        .set_read_timeout(Some(timeout))
        .context("setting a time limit")?;
    stream
        .set_write_timeout(Some(timeout))
        .context("setting a time limit")?;
    let mut text = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\n");
    if let Some(token) = token {
        text.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    if let Some(tag) = if_match {
        text.push_str(&format!("If-Match: {tag}\r\n"));
    }
    if let Some(body) = body {
        let length = body.len();
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {length}\r\n"
        ));
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    stream
        .write_all(text.as_bytes())
        .with_context(|| format!("asking {address}"))?;
    let mut answer = Vec::new();
    stream
        .take(LONGEST)
        .read_to_end(&mut answer)
        .with_context(|| format!("reading the answer of {address} to {method} {path}"))?;
    parse(&String::from_utf8_lossy(&answer))
        .with_context(|| format!("the answer of {address} to {method} {path}"))
}

/// Reads `http://ADDRESS[:PORT]/PATH`.
///
/// # Errors
/// It is something else; names are not looked up.
pub fn parse_url(url: &str) -> Result<(SocketAddr, String)> {
    let rest = url.strip_prefix("http://");
    let rest =
        rest.with_context(|| format!("expected http://ADDRESS[:PORT]/PATH, found {url:?}"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = host
        .parse()
        .or_else(|_| host.parse().map(|ip| SocketAddr::new(ip, 80)));
    let address = address.with_context(|| format!("expected an address, found {host:?}"))?;
    Ok((address, format!("/{path}")))
}

fn parse(answer: &str) -> Result<Answer> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!(
            "expected an HTTP answer, found {:?}",
            answer.chars().take(80).collect::<String>()
        );
    };
    let line = head.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    let status = status.with_context(|| format!("expected an HTTP status line, found {line:?}"))?;
    Ok(Answer {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_and_the_body_are_read() {
        let answer = parse("HTTP/1.1 409 Conflict\r\nServer: x\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 409,
                body: "{\"a\":1}".to_owned()
            }
        );
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 ok\r\n\r\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?} was taken for an answer");
        }
    }

    #[test]
    fn a_url_has_an_address_and_maybe_a_port_and_a_path() {
        let cases = [
            ("http://10.99.0.1", "10.99.0.1:80", "/"),
            ("http://10.99.0.1/", "10.99.0.1:80", "/"),
            ("http://10.99.0.1:8080/a/b?c", "10.99.0.1:8080", "/a/b?c"),
        ];
        for (url, address, path) in cases {
            let wanted = (address.parse().unwrap(), path.to_owned());
            assert_eq!(parse_url(url).unwrap(), wanted, "{url}");
        }
        for bad in ["10.99.0.1", "https://10.99.0.1/", "http://example/"] {
            assert!(parse_url(bad).is_err(), "{bad} was read as a URL");
        }
    }
}
