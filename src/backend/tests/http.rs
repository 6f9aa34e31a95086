//! Questions over real sockets, to a server that writes what the test says.

use std::path::Path;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
};

use crate::{
    auth::Secret,
    backend::{BackendTarget, BackendTransport, HttpTransport, TransportError},
    config::BackendUrl,
    http::FetchError,
};
use bytes::Bytes;
use std::sync::Arc;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Reads the head and body of a request.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> (String, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let len = head.split_once("content-length: ").unwrap().1;
    let len = len.split_once("\r\n").unwrap().0.parse().unwrap();
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.unwrap();
    (head, String::from_utf8(body).unwrap())
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), response: &str) -> String {
    let (head, body) = read_request(stream).await;
    assert_eq!(body, r#"{"question":1}"#);
    stream.write_all(response.as_bytes()).await.unwrap();
    head
}

/// A transport and its target.
struct Asking(HttpTransport, Arc<BackendTarget>);

impl Asking {
    fn new(url: &str, key: Option<&str>) -> Self {
        let url = BackendUrl::parse(url).unwrap();
        let key = key.map(Secret::new);
        let target = BackendTarget::new(url, key.as_ref()).unwrap();
        Self(HttpTransport::default(), Arc::new(target))
    }

    async fn post(&self) -> Result<Bytes, TransportError> {
        self.0.post(&self.1, r#"{"question":1}"#.into()).await
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ask?v=1", listener.local_addr().unwrap());
    (listener, url)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

#[tokio::test]
async fn a_connection_is_used_again_and_replaced_when_the_backend_has_closed_it() {
    let (listener, url) = listen().await;
    let asking = Asking::new(&url, Some("hunter2"));
    let serving = async {
        let mut first = accept(&listener).await;
        let head = answer(&mut first, OK).await;
        assert!(head.starts_with("post /ask?v=1 http/1.1\r\n"), "{head}");
        for line in [
            "authorization: bearer hunter2\r\n",
            "content-type: application/json\r\n",
            "accept: application/json\r\n",
            &format!("host: {}\r\n", listener.local_addr().unwrap()),
        ] {
            assert!(head.contains(line), "{head}");
        }
        answer(&mut first, OK).await;
        // It closes the connection when the third question has come.
        read_request(&mut first).await;
        drop(first);
        let mut second = accept(&listener).await;
        answer(&mut second, OK).await;
    };
    let asking = async {
        for _ in 0..3 {
            assert_eq!(asking.post().await.unwrap(), "{}");
        }
    };
    tokio::join!(serving, asking);
}

#[tokio::test]
async fn whatever_is_not_status_200_of_a_bounded_size_is_a_failure() {
    let too_big = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
        " ".repeat(256 * 1024 + 1)
    );
    let redirect = "HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n";
    let empty = "HTTP/1.1 204 No Content\r\n\r\n";
    let torn = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}";
    for (response, expected) in [
        (redirect, "the response status is 302 Found"),
        (empty, "the response status is 204 No Content"),
        (&too_big, "the response has more than 262144 bytes"),
        ("nonsense\r\n\r\n", "no valid HTTP response"),
        ("", "no valid HTTP response"),
        (torn, "no valid HTTP response"),
    ] {
        let (listener, url) = listen().await;
        let asking = Asking::new(&url, None);
        let serving = async {
            let mut stream = accept(&listener).await;
            let (head, _) = read_request(&mut stream).await;
            assert!(!head.contains("authorization"));
            // The relay may stop reading before it has everything.
            drop(stream.write_all(response.as_bytes()).await);
        };
        let (answer, ()) = tokio::join!(asking.post(), serving);
        let failure = answer.unwrap_err().to_string();
        assert!(failure.starts_with(expected), "{failure}");
    }
}

#[tokio::test]
async fn a_unix_socket_is_asked_at_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("app.sock");
    let asking = Asking::new(&format!("unix:{}:/ask?v=1", socket.display()), None);
    assert!(is_unreachable(&asking, &socket).await);
    let listener = UnixListener::bind(&socket).unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = answer(&mut stream, OK).await;
        assert!(head.starts_with("post /ask?v=1 http/1.1\r\n"), "{head}");
        assert!(head.contains("host: localhost\r\n"), "{head}");
    };
    let (answer, ()) = tokio::join!(asking.post(), serving);
    assert_eq!(answer.unwrap(), "{}");
}

async fn is_unreachable(asking: &Asking, socket: &Path) -> bool {
    assert!(!socket.exists());
    matches!(
        asking.post().await,
        Err(TransportError(FetchError::Connect(_)))
    )
}
