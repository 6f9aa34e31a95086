//! The WebSocket handshake, answered from a template. Only the parts that the answer
//! depends on are read: `GET /ws/<topic number>` and the key.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http;

pub(crate) struct Accepted {
    pub(crate) topic: usize,
    pub(crate) answer: Vec<u8>,
}

/// Returns the answer to a handshake if it has arrived completely. Panics if it is invalid:
/// only the benchmark connects to the floor.
pub(crate) fn answer(bytes: &[u8]) -> Option<Accepted> {
    let head = http::head(bytes)?;
    let key = http::header(head, b"sec-websocket-key").expect("a handshake has a key");
    Some(Accepted {
        topic: http::number_in_path(head, b"GET /ws/"),
        answer: [
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Accept: "
                .as_slice(),
            derive_accept_key(key).as_bytes(),
            b"\r\n\r\n",
        ]
        .concat(),
    })
}
