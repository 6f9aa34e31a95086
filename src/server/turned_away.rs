//! Clients for which the process has no descriptor: they are told so by who accepts
//! them, on the spot, since what waits in the kernel's queue is told nothing.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

/// So much of a request is read at the most, to be forgotten.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

const BODY: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"RATE_LIMIT_EXCEEDED","detail":"there are too many connections"}"#;

/// Answers 503 and closes, without waiting for anything. The stream does not block. What
/// is there of the request is read first: were it left, the kernel would reset the
/// connection, and the answer might be lost.
pub(super) fn turn_away(mut stream: TcpStream, retry_after: Duration) {
    let mut request = [0; REQUEST_BYTES_MAX];
    // What fails here fails for the client alone, who is to go anyway.
    drop(stream.read(&mut request));
    drop(stream.write(answer(retry_after).as_bytes()));
    drop(stream.shutdown(Shutdown::Write));
    drop(stream.read(&mut request));
}

fn answer(retry_after: Duration) -> String {
    let seconds = retry_after.as_millis().div_ceil(1000).max(1);
    format!(
        "HTTP/1.1 503 Service Unavailable\r\n\
         content-type: application/problem+json\r\n\
         retry-after: {seconds}\r\n\
         connection: close\r\n\
         content-length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Duration};

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{http::Problem, protocol::ErrorCode};

    /// What a client reads that has sent its request before it was accepted.
    fn told(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(request).unwrap();
        let (stream, _) = listener.accept().unwrap();
        // On loopback what is written has arrived when the write comes back.
        stream.set_nonblocking(true).unwrap();
        turn_away(stream, Duration::from_millis(2500));
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test]
    async fn it_is_told_what_any_other_refusal_tells_it() {
        let problem = Problem::unavailable(
            ErrorCode::RateLimitExceeded,
            "there are too many connections",
            Duration::from_millis(2500),
        )
        .closing()
        .into_response();
        let answer = told(b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        for (name, value) in problem.headers() {
            let line = format!("{name}: {}", value.to_str().unwrap());
            assert!(head.lines().any(|it| it == line), "{line} in {head}");
        }
        let expected = problem.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.as_bytes(), expected);
    }

    #[test]
    fn who_has_sent_nothing_yet_is_told_too() {
        assert!(told(b"").contains("retry-after: 3\r\n"));
    }
}
