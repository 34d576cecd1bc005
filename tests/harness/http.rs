//! The smallest HTTP/1.1 client that will do.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The head, as text.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null when it is not JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Asserts the status and gives the answer back.
    ///
    /// # Panics
    /// Showing the body.
    #[track_caller]
    pub fn has(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }
}

/// A port that was free a moment ago.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Sends one request on a connection of its own.
///
/// # Errors
/// When the connection breaks before the answer is complete.
pub fn send(port: u16, request: &Request<'_>) -> std::io::Result<Answer> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    exchange(stream, &format!("127.0.0.1:{port}"), request)
}

/// Sends one request to a Unix socket, on a connection of its own.
///
/// # Errors
/// When the connection breaks before the answer is complete.
pub fn send_to_socket(path: &Path, request: &Request<'_>) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    exchange(stream, "localhost", request)
}

fn exchange(mut stream: impl Read + Write, host: &str, request: &Request<'_>) -> std::io::Result<Answer> {
    let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\n", request.method, request.path);
    head.push_str(&format!("connection: close\r\ncontent-length: {}\r\n", request.body.len()));
    for (name, value) in &request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(&[head.as_bytes(), request.body].concat())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no complete answer"))
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, with a query if there is one.
    pub path: &'a str,
    /// Further headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: &'a [u8],
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(bytes.get(..end)?).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = bytes.get(end + 4..)?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            line.to_ascii_lowercase().strip_prefix(name).map(|value| value.trim().to_owned())
        })
    };
    let body = if header("transfer-encoding:").is_some_and(|value| value == "chunked") {
        unchunk(rest)?
    } else {
        let length: usize = header("content-length:").map_or(Some(rest.len()), |value| value.parse().ok())?;
        rest.get(..length)?.to_vec()
    };
    Some(Answer { status, head, body })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(rest.get(..line)?).ok()?.trim(), 16).ok()?;
        rest = rest.get(line + 2..)?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}
