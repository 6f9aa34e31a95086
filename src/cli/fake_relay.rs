//! A fake relay over TCP, for the tests of the commands that connect to one.

use futures_util::SinkExt;
use prost::Message as _;
use sidewire_client::{ControlMessage, Envelope, SUBPROTOCOL};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

/// Listens on a free port; also returns the URL of the relay.
pub(super) async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    (listener, url)
}

/// Accepts the next client.
#[expect(clippy::result_large_err, reason = "tungstenite's callback is so")]
pub(super) async fn accept(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let echo = |_: &Request, mut response: Response| {
        let headers = response.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse().unwrap());
        Ok::<_, ErrorResponse>(response)
    };
    let (stream, _) = listener.accept().await.unwrap();
    accept_hdr_async(stream, echo).await.unwrap()
}

/// Sends an envelope with this message id.
pub(super) async fn send(
    peer: &mut WebSocketStream<TcpStream>,
    message_id: &str,
    control: Option<ControlMessage>,
) {
    let envelope = Envelope {
        message_id: message_id.to_owned(),
        control,
        ..Default::default()
    };
    let message = Message::Binary(envelope.encode_to_vec().into());
    peer.send(message).await.unwrap();
}
