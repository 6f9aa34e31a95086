//! HTTP/1.1 as a client or a backend sees it: the head of a handshake, and a parser for the
//! relay's answers.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use httparse::Status;
use serde_json::Value;

use crate::process::PATIENCE;

/// The key of RFC 6455, 1.3, and the expected `Sec-WebSocket-Accept`.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to [`KEY`].
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Returns a handshake with these header lines, each with its line ending, and the required ones.
#[must_use]
pub fn handshake(headers: &str) -> String {
    handshake_to("/ws", headers)
}

/// Returns a handshake to this path and query.
#[must_use]
pub fn handshake_to(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

/// Returns the header line that carries a token or a key.
#[must_use]
pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// An HTTP answer as received.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, with their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body, without the framing of chunks.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Returns the body as text.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    /// Returns the body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the problem document and returns its `code`.
    #[must_use]
    pub fn problem_code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        let detail = document["detail"].as_str().unwrap_or_default();
        assert!(!detail.is_empty());
        document["code"].as_str().unwrap().to_owned()
    }
}

/// Removes the first answer and returns it; `None` while it is incomplete. The answer to a HEAD
/// request has no body, whatever its headers say.
pub fn take_answer(bytes: &mut Vec<u8>, has_body: bool) -> Result<Option<Answer>, String> {
    let invalid = |error: httparse::Error, bytes: &[u8]| {
        let begin = &bytes[..bytes.len().min(200)];
        format!("{error} in {:?}", String::from_utf8_lossy(begin))
    };
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(head_len) = response.parse(bytes).map_err(|it| invalid(it, bytes))? else {
        return Ok(None);
    };
    let status = response.code.unwrap();
    let headers: BTreeMap<_, _> = response
        .headers
        .iter()
        .map(|header| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        })
        .collect();
    let rest = &bytes[head_len..];
    let body = if !has_body {
        Some((Vec::new(), 0))
    } else if headers
        .get("transfer-encoding")
        .is_some_and(|it| it == "chunked")
    {
        join_chunks(rest)?
    } else {
        let length = headers.get("content-length").map_or("0", String::as_str);
        let length: usize = length
            .parse()
            .map_err(|_| format!("no length in {headers:?}"))?;
        rest.get(..length).map(|body| (body.to_vec(), length))
    };
    let Some((body, body_len)) = body else {
        return Ok(None);
    };
    bytes.drain(..head_len + body_len);
    Ok(Some(Answer {
        status,
        headers,
        body,
    }))
}

/// Returns the contents of a chunked body (RFC 9112, 7.1) and its length on the wire; `None`
/// while it is incomplete.
fn join_chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut chunks, mut at) = (Vec::new(), 0);
    loop {
        let size = httparse::parse_chunk_size(&bytes[at..]);
        let Status::Complete((line_len, size)) = size.map_err(|error| error.to_string())? else {
            return Ok(None);
        };
        let begin = at + line_len;
        let end = begin + usize::try_from(size).unwrap();
        let Some(chunk) = bytes.get(begin..end + 2) else {
            return Ok(None);
        };
        let Some(chunk) = chunk.strip_suffix(b"\r\n") else {
            return Err("a chunk is longer than its size".to_owned());
        };
        chunks.push(chunk);
        at = end + 2;
        if size == 0 {
            return Ok(Some((chunks.concat(), at)));
        }
    }
}

/// Sends a request and returns the answer as text, up to the end of the connection or, if it
/// becomes a WebSocket, of the head.
#[must_use]
pub fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let mut bytes = [0; 4096];
    while !(answer.starts_with(b"HTTP/1.1 101") && answer.ends_with(b"\r\n\r\n")) {
        match stream.read(&mut bytes).unwrap() {
            0 => break,
            read => answer.extend_from_slice(&bytes[..read]),
        }
    }
    String::from_utf8(answer).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_one_at_a_time() {
        let answers = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}\
                        HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n\
                        HTTP/1.1 204 No Content\r\n\r\n";
        let (mut bytes, mut bodies) = (Vec::new(), Vec::new());
        for byte in answers {
            bytes.push(*byte);
            if let Some(answer) = take_answer(&mut bytes, true).unwrap() {
                bodies.push(answer.text().to_owned());
            }
        }
        assert_eq!(bodies, ["{}", "abc0123456789", ""]);
        assert_eq!(bytes, b"");
    }

    #[test]
    fn the_answer_to_a_head_request_has_no_body() {
        let mut bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_vec();
        let answer = take_answer(&mut bytes, false).unwrap().unwrap();
        assert_eq!(answer.header("content-length"), Some("5"));
        assert_eq!((answer.text(), bytes.len()), ("", 0));
    }
}
