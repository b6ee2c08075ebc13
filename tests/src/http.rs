//! As much HTTP/1.1 as the lab speaks: messages with a head and a body of stated length. Written out here, so that
//! tests see the server's bytes and not a library's opinion of them.

use std::io::{self, ErrorKind, Read, Write};

use serde::{Deserialize, Serialize};

/// What a client asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// Header lines besides `Host`.
    pub headers: Vec<(String, String)>,
}

/// What a server answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Header lines in the server's order.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

struct Message {
    first_line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

// === impl Request ===

impl Request {
    /// A `GET` without headers.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self {
            method: "GET".into(),
            target: target.into(),
            headers: Vec::new(),
        }
    }

    /// The same request with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// Writes the request.
    pub fn send(&self, stream: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: lab\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text.extend([name, ": ", value, "\r\n"]);
        }
        text.push_str("\r\n");
        stream.write_all(text.as_bytes())
    }

    /// Reads a request; `None` when the client is done.
    pub fn receive(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let Some(message) = read_message(stream)? else {
            return Ok(None);
        };
        let mut words = message.first_line.split(' ').map(str::to_owned);
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(invalid("a request line needs a method and a target"));
        };
        Ok(Some(Self {
            method,
            target,
            headers: message.headers,
        }))
    }
}

// === impl Response ===

impl Response {
    /// An answer of plain text.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as text.
    #[must_use]
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Writes the response.
    pub fn send(&self, stream: &mut impl Write) -> io::Result<()> {
        let head = format!(
            "HTTP/1.1 {} Lab\r\nContent-Length: {}\r\n\r\n",
            self.status,
            self.body.len()
        );
        stream.write_all(&[head.as_bytes(), &self.body].concat())
    }

    /// Reads a response; the server's closing before one is complete is an error.
    pub fn receive(stream: &mut impl Read) -> io::Result<Self> {
        let message = read_message(stream)?.ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))?;
        let status = message.first_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| invalid("a status line needs a status"))?;
        Ok(Self {
            status,
            headers: message.headers,
            body: message.body,
        })
    }
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

fn read_message(stream: &mut impl Read) -> io::Result<Option<Message>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return if head.is_empty() {
                Ok(None)
            } else {
                Err(ErrorKind::UnexpectedEof.into())
            };
        }
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines();
    let first_line = lines.next().unwrap_or_default().to_owned();
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let length = find(&headers, "content-length").map_or(Ok(0), str::parse);
    let mut body = vec![0; length.map_err(|error| invalid(&format!("Content-Length: {error}")))?];
    stream.read_exact(&mut body)?;
    Ok(Some(Message {
        first_line,
        headers,
        body,
    }))
}

fn invalid(problem: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem)
}
