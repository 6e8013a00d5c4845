//! Just enough HTTP/1.1 to be a cheap client: a request made once, and an
//! incremental reader of answers (by length, chunked, or until close).

use std::{io, net::SocketAddr};

#[derive(Clone)]
pub struct Endpoint {
    pub addr: SocketAddr,
    pub path: String,
    pub headers: Vec<String>,
}

impl Endpoint {
    /// `http://127.0.0.1:PORT/path`, loopback only.
    pub fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url}: only http:// URLs"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = host.replace("localhost", "127.0.0.1");
        let addr: SocketAddr = host.parse().map_err(|_| format!("{url}: no address and port"))?;
        if !addr.ip().is_loopback() {
            return Err(format!("{url}: loopback only"));
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Endpoint { addr, path: path.to_owned(), headers: Vec::new() })
    }

    /// `path` on a port of this machine; with a key, if one is given.
    pub fn local(port: u16, path: &str, key: Option<&str>) -> Self {
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        Endpoint { addr, path: path.to_owned(), headers: key.map(bearer).into_iter().collect() }
    }

    pub fn get(&self) -> Vec<u8> {
        self.without_body("GET")
    }

    pub fn delete(&self) -> Vec<u8> {
        self.without_body("DELETE")
    }

    fn without_body(&self, method: &str) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|h| format!("{h}\r\n")).collect();
        format!("{method} {} HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", self.path, self.addr).into_bytes()
    }

    pub fn post(&self, body: &str) -> Vec<u8> {
        let headers: String = self.headers.iter().map(|h| format!("{h}\r\n")).collect();
        format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            self.path,
            self.addr,
            body.len()
        )
        .into_bytes()
    }
}

/// The header line of a key.
pub fn bearer(key: &str) -> String {
    format!("authorization: Bearer {key}")
}

enum Body {
    Head,
    Length(u64),
    UntilClose,
    ChunkSize(u64),
    ChunkExtension(u64),
    ChunkData(u64),
    ChunkEnd,
    Trailer { empty: bool },
    Done,
}

pub struct Reader {
    head: Vec<u8>,
    body: Body,
    pub status: u16,
    pub close: bool,
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Reader {
    pub fn new() -> Self {
        Reader { head: Vec::with_capacity(512), body: Body::Head, status: 0, close: false }
    }

    pub fn done(&self) -> bool {
        matches!(self.body, Body::Done)
    }

    /// The peer closed. True where that ends the answer rightly.
    pub fn end(&mut self) -> bool {
        let ok = matches!(self.body, Body::UntilClose | Body::Done);
        self.body = Body::Done;
        self.close = true;
        ok
    }

    pub fn feed(&mut self, mut data: &[u8], mut sink: impl FnMut(&[u8])) -> io::Result<()> {
        while !data.is_empty() {
            match &mut self.body {
                Body::Head => {
                    let before = self.head.len();
                    self.head.extend_from_slice(data);
                    let from = before.saturating_sub(3);
                    let Some(at) = self.head[from..].windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(()) };
                    let end = from + at + 4;
                    data = &data[end - before..];
                    self.head.truncate(end);
                    self.begin()?;
                }
                Body::Length(left) => {
                    let n = (data.len() as u64).min(*left) as usize;
                    sink(&data[..n]);
                    *left -= n as u64;
                    if *left == 0 {
                        self.body = Body::Done;
                    }
                    data = &data[n..];
                }
                Body::UntilClose => {
                    sink(data);
                    return Ok(());
                }
                Body::ChunkSize(size) => {
                    let b = data[0];
                    data = &data[1..];
                    match b {
                        b'\n' => {
                            self.body = match *size {
                                0 => Body::Trailer { empty: true },
                                n => Body::ChunkData(n),
                            }
                        }
                        b'\r' => {}
                        b';' | b' ' => self.body = Body::ChunkExtension(*size),
                        _ => {
                            let digit = (b as char).to_digit(16).ok_or_else(|| bad("chunk size"))?;
                            *size = *size << 4 | u64::from(digit);
                        }
                    }
                }
                Body::ChunkExtension(size) => {
                    let size = *size;
                    if data[0] == b'\n' {
                        self.body = if size == 0 { Body::Trailer { empty: true } } else { Body::ChunkData(size) };
                    }
                    data = &data[1..];
                }
                Body::ChunkData(left) => {
                    let n = (data.len() as u64).min(*left) as usize;
                    sink(&data[..n]);
                    *left -= n as u64;
                    if *left == 0 {
                        self.body = Body::ChunkEnd;
                    }
                    data = &data[n..];
                }
                Body::ChunkEnd => {
                    if data[0] == b'\n' {
                        self.body = Body::ChunkSize(0);
                    }
                    data = &data[1..];
                }
                Body::Trailer { empty } => {
                    match data[0] {
                        b'\n' if *empty => self.body = Body::Done,
                        b'\n' => *empty = true,
                        b'\r' => {}
                        _ => *empty = false,
                    }
                    data = &data[1..];
                }
                Body::Done => return Err(bad("bytes after the answer")),
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> io::Result<()> {
        let head = std::str::from_utf8(&self.head).map_err(|_| bad("head is not text"))?;
        let mut lines = head.split("\r\n");
        let first = lines.next().unwrap_or("");
        self.status = first.get(9..12).and_then(|s| s.parse().ok()).ok_or_else(|| bad("status line"))?;
        self.body = Body::UntilClose;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                self.body = Body::Length(value.parse().map_err(|_| bad("content-length"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                self.body = Body::ChunkSize(0);
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
                self.close = true;
            }
        }
        if matches!(self.body, Body::Length(0)) || self.status == 204 {
            self.body = Body::Done;
        }
        Ok(())
    }
}

/// Counts `data:` lines and collects the `~abcd efgh ijkl mnop~` clock stamps of a stream (four bits a letter),
/// however its bytes are cut into reads.
#[derive(Default)]
pub struct Events {
    column: usize,
    matching: bool,
    stamp: Option<u64>,
    pub count: u64,
}

impl Events {
    pub fn feed(&mut self, data: &[u8], mut stamped: impl FnMut(u64)) {
        for &b in data {
            if b == b'\n' {
                self.column = 0;
                self.matching = true;
                self.stamp = None;
                continue;
            }
            if self.column < 5 {
                let first = self.column == 0;
                self.matching = (first || self.matching) && b == b"data:"[self.column];
                if self.matching && self.column == 4 {
                    self.count += 1;
                }
            }
            self.column += 1;
            match (&mut self.stamp, b) {
                (Some(n), b'a'..=b'p') => *n = *n << 4 | u64::from(b - b'a'),
                (Some(_), b' ') => {}
                (Some(n), b'~') if *n > 0 => {
                    stamped(*n);
                    self.stamp = None;
                }
                (None, b'~') => self.stamp = Some(0),
                (s, _) => *s = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: &[u8], step: usize) -> (u16, Vec<u8>, bool) {
        let (mut r, mut out) = (Reader::new(), Vec::new());
        for part in answer.chunks(step) {
            r.feed(part, |b| out.extend_from_slice(b)).unwrap();
        }
        (r.status, out, r.done())
    }

    #[test]
    fn answers_in_any_pieces() {
        let by_length = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let chunked =
            b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n4;x=1\r\nhell\r\n1\r\no\r\n0\r\nt: 1\r\n\r\n";
        for step in 1..60 {
            assert_eq!(body(by_length, step), (200, b"hello".to_vec(), true), "{step}");
            assert_eq!(body(chunked, step), (201, b"hello".to_vec(), true), "{step}");
        }
    }

    #[test]
    fn events_and_stamps_in_any_pieces() {
        let text = b"data: {\"content\":\"~aaaa aaaa aaaa aahl~ \"}\n\nevent: x\ndata:{\"a\":\"b~c\"}\r\n\ndatum\nxdata: 1\n\ndata: ~aacn~\n\n";
        for step in 1..80 {
            let (mut e, mut stamps) = (Events::default(), Vec::new());
            for part in text.chunks(step) {
                e.feed(part, |s| stamps.push(s));
            }
            assert_eq!((e.count, &stamps[..]), (3, &[123, 45][..]), "{step}");
        }
    }
}
