//! Answers clients for which the process has no descriptor or memory, as soon as they are
//! accepted: connections left in the kernel's queue would get no answer.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};

use crate::http::HttpProblem;

/// Maximum number of clients that get time to send their request and to read the answer. They
/// use the descriptors that are kept in reserve.
const LISTENED_TO_MAX: usize = 16;

/// Time limit for the request, and again for the answer.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Size of the buffer for requests, which are read and discarded, in bytes.
const REQUEST_BYTES: usize = 4 * 1024;

/// The clients that are being answered.
#[derive(Debug, Default)]
pub(super) struct TurnedAway(JoinSet<()>);

impl TurnedAway {
    /// Sends the answer and closes the connection. Up to `LISTENED_TO_MAX` clients get time to
    /// send their request and to read the answer; the others are answered at once.
    pub(super) fn answer_and_close(&mut self, stream: TcpStream, problem: HttpProblem) {
        while self.0.try_join_next().is_some() {}
        let answer = problem.with_connection_close().into_http1();
        if self.0.len() < LISTENED_TO_MAX {
            self.0.spawn(async move {
                // A failure affects only this client, which is turned away anyway.
                drop(answer_after_request(stream, &answer).await);
            });
        } else {
            answer_at_once(stream, &answer);
        }
    }
}

async fn answer_after_request(stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let mut request = vec![0; REQUEST_BYTES];
    drop(timeout(LISTEN_TIMEOUT, stream.read(&mut request)).await);
    let goodbye = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        while stream.read(&mut request).await? > 0 {}
        Ok(())
    };
    timeout(LISTEN_TIMEOUT, goodbye).await?
}

/// Answers without waiting; the stream is non-blocking. Reads first what has arrived of the
/// request: if it were left unread, the kernel would reset the connection, and the answer might
/// be lost.
fn answer_at_once(mut stream: TcpStream, answer: &[u8]) {
    let mut request = [0; REQUEST_BYTES];
    drop(stream.read(&mut request));
    drop(stream.write(answer));
    drop(stream.shutdown(Shutdown::Write));
    drop(stream.read(&mut request));
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use http_body_util::BodyExt as _;

    use super::*;
    use sidewire_protocol::ErrorCode;

    const RETRY_AFTER: Duration = Duration::from_millis(2500);

    fn problem() -> HttpProblem {
        HttpProblem::unavailable(
            ErrorCode::RateLimitExceeded,
            "there are too many connections",
            RETRY_AFTER,
        )
    }

    /// Connects a client. Returns it and the relay's end of the connection.
    fn connect(listener: &TcpListener) -> (tokio::net::TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (tokio::net::TcpStream::from_std(client).unwrap(), stream)
    }

    async fn read_all(client: &mut tokio::net::TcpStream) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_turned_away_request_gets_the_same_answer_as_any_refusal() {
        let expected = problem().with_connection_close().into_response();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, stream) = connect(&listener);
        let mut turned_away = TurnedAway::default();
        turned_away.answer_and_close(stream, problem());
        // The answer comes only after the request.
        let request = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        let answer = read_all(&mut client).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        for (name, value) in expected.headers() {
            let line = format!("{name}: {}", value.to_str().unwrap());
            assert!(head.lines().any(|it| it == line), "{line} in {head}");
        }
        let expected = expected.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.as_bytes(), expected);
    }

    #[tokio::test]
    async fn some_requests_are_read_first_and_the_rest_are_answered_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut turned_away = TurnedAway::default();
        let mut silent = Vec::new();
        for _ in 0..LISTENED_TO_MAX {
            let (client, stream) = connect(&listener);
            turned_away.answer_and_close(stream, problem());
            silent.push(client);
        }
        let (mut next, stream) = connect(&listener);
        turned_away.answer_and_close(stream, problem());
        assert_eq!(turned_away.0.len(), LISTENED_TO_MAX);
        assert!(read_all(&mut next).await.contains("retry-after: 3\r\n"));
        // Silent clients are answered after the timeout.
        for client in &mut silent {
            assert!(read_all(client).await.starts_with("HTTP/1.1 503 "));
        }
        drop(silent);
        while turned_away.0.join_next().await.is_some() {}
    }
}
