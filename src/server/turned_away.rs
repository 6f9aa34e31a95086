//! Clients for which the process has no descriptor: they are told so by who accepts
//! them, on the spot, since what waits in the kernel's queue is told nothing.

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

/// So many are listened to before they are told, and until they have gone: of the
/// descriptors that are kept back.
const LISTENED_TO_MAX: usize = 16;

/// For how long, each time.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(1);

/// So much of a request is read at once, to be forgotten.
const REQUEST_BYTES: usize = 4 * 1024;

const BODY: &str = r#"{"type":"about:blank","title":"Service Unavailable","status":503,"code":"RATE_LIMIT_EXCEEDED","detail":"there are too many connections"}"#;

/// Those who are being told.
#[derive(Debug, Default)]
pub(super) struct TurnedAway(JoinSet<()>);

impl TurnedAway {
    /// Answers 503 and closes. Some are given the time to ask first and to hear the
    /// answer; when there are too many for that, the rest are told at once.
    pub(super) fn tell(&mut self, stream: TcpStream, retry_after: Duration) {
        while self.0.try_join_next().is_some() {}
        let answer = answer(retry_after);
        if self.0.len() < LISTENED_TO_MAX {
            self.0.spawn(async move {
                // What fails here fails for the client alone, who is to go anyway.
                drop(listen_and_tell(stream, &answer).await);
            });
        } else {
            tell_at_once(stream, &answer);
        }
    }
}

async fn listen_and_tell(stream: TcpStream, answer: &str) -> io::Result<()> {
    let mut stream = tokio::net::TcpStream::from_std(stream)?;
    let mut request = vec![0; REQUEST_BYTES];
    drop(timeout(LISTEN_TIMEOUT, stream.read(&mut request)).await);
    let goodbye = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        while stream.read(&mut request).await? > 0 {}
        Ok(())
    };
    timeout(LISTEN_TIMEOUT, goodbye).await?
}

/// Without waiting for anything; the stream does not block. What is there of the request
/// is read first: were it left, the kernel would reset the connection, and the answer
/// might be lost.
fn tell_at_once(mut stream: TcpStream, answer: &str) {
    let mut request = [0; REQUEST_BYTES];
    drop(stream.read(&mut request));
    drop(stream.write(answer.as_bytes()));
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
    use std::net::TcpListener;

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{http::Problem, protocol::ErrorCode};

    const RETRY_AFTER: Duration = Duration::from_millis(2500);

    /// A client, and the relay's end of its connection.
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
    async fn who_asks_is_told_what_any_other_refusal_tells_it() {
        let problem = Problem::unavailable(
            ErrorCode::RateLimitExceeded,
            "there are too many connections",
            RETRY_AFTER,
        )
        .closing()
        .into_response();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut client, stream) = connect(&listener);
        let mut turned_away = TurnedAway::default();
        turned_away.tell(stream, RETRY_AFTER);
        // It is waited for the request.
        let request = b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        let answer = read_all(&mut client).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        for (name, value) in problem.headers() {
            let line = format!("{name}: {}", value.to_str().unwrap());
            assert!(head.lines().any(|it| it == line), "{line} in {head}");
        }
        let expected = problem.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.as_bytes(), expected);
    }

    #[tokio::test]
    async fn some_are_listened_to_and_the_rest_are_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut turned_away = TurnedAway::default();
        let mut silent = Vec::new();
        for _ in 0..LISTENED_TO_MAX {
            let (client, stream) = connect(&listener);
            turned_away.tell(stream, RETRY_AFTER);
            silent.push(client);
        }
        let (mut next, stream) = connect(&listener);
        turned_away.tell(stream, RETRY_AFTER);
        assert_eq!(turned_away.0.len(), LISTENED_TO_MAX);
        assert!(read_all(&mut next).await.contains("retry-after: 3\r\n"));
        // Those who say nothing are told in the end.
        for client in &mut silent {
            assert!(read_all(client).await.starts_with("HTTP/1.1 503 "));
        }
        drop(silent);
        while turned_away.0.join_next().await.is_some() {}
    }
}
