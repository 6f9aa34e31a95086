//! What comes before a WebSocket: TLS, the PROXY header, the request and its token.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, client::Resumption, pki_types::ServerName};
use sidewire_testing::websocket::{self, FIN, frame};

use super::{Row, World};
use crate::largest::{
    attack::{Attack, Expected, Listener, WebSocket},
    items::{self, CLIENT_HEAD_BYTES, Encoding, KIB},
};

pub(super) fn handshakes(world: &World) -> Vec<Row> {
    let close = frame(FIN | websocket::CLOSE, &1000_u16.to_be_bytes());
    let talk = || world.talk(Encoding::Protobuf, close.clone(), Expected::Close(1000));
    let with_headers = |bytes: usize, expected| {
        let talk = talk();
        let head = talk.request(&talk.tokens[0]).len();
        Attack::WebSocket(WebSocket {
            headers: items::many_headers(bytes - head),
            expected,
            ..talk
        })
    };
    let with_tokens = |tokens: &Arc<[String]>, expected| {
        Attack::WebSocket(WebSocket {
            tokens: Arc::clone(tokens),
            expected,
            ..talk()
        })
    };
    let behind = |header: Vec<u8>, expected| {
        Attack::WebSocket(WebSocket {
            proxy_header: Some(header.into()),
            expected,
            ..talk()
        })
    };
    // Version 1 is read byte by byte, up to its end.
    let line = |len: usize| {
        let padding = len - "PROXY UNKNOWN \r\n".len();
        format!("PROXY UNKNOWN {}\r\n", "x".repeat(padding)).into_bytes()
    };
    let binary = |len: usize| {
        let length = (len as u16).to_be_bytes();
        let addresses = [127, 0, 0, 3, 127, 0, 0, 1, 0x30, 0x39, 0x0b, 0xb8];
        let rest = vec![4; len - addresses.len()];
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
        [&head[..], &length, &addresses, &rest].concat()
    };
    vec![
        Row::legal(
            &["GET /ws"],
            "a head of 16 KiB",
            with_headers(CLIENT_HEAD_BYTES, Expected::Close(1000)),
        )
        .beyond(with_headers(CLIENT_HEAD_BYTES + 1, Expected::Status(431))),
        Row::refused(
            &["GET /ws"],
            "a head of 16 KiB without end",
            Attack::Held {
                listener: Listener::Client,
                bytes: vec![b'G'; CLIENT_HEAD_BYTES - 1].into(),
            },
        ),
        Row::legal(
            &["token"],
            "a grant in 8 KiB",
            with_tokens(&world.long_tokens, Expected::Close(1000)),
        )
        .beyond(with_tokens(&world.too_long_tokens, Expected::Status(401))),
        Row::refused(
            &["token"],
            "forged for four keys of P-384",
            with_tokens(&world.forged, Expected::Status(401)),
        ),
        Row::legal(
            &["PROXY header"],
            "a line of 107 bytes",
            behind(line(107), Expected::Close(1000)),
        )
        .beyond(behind(line(108), Expected::Close(0))),
        Row::legal(
            &["PROXY header"],
            "4 KiB of version 2",
            behind(binary(4 * KIB), Expected::Close(1000)),
        )
        .beyond(behind(binary(4 * KIB + 1), Expected::Close(0))),
        Row::refused(
            &["PROXY header"],
            "a line without end",
            behind(line(200), Expected::Close(0)),
        ),
    ]
}

/// Returns the rows of a relay with TLS. `config` is of a client that trusts it.
pub(in crate::largest) fn tls_rows(config: &Arc<ClientConfig>) -> Vec<Row> {
    let mut config = ClientConfig::clone(config);
    // Each handshake has a signature.
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let hello: Arc<[u8]> = hello(&config).into();
    let hello = |is_awaited| Attack::Hello {
        bytes: Arc::clone(&hello),
        is_awaited,
    };
    let entry = ["TLS ClientHello"];
    vec![
        Row::legal(&entry, "a whole handshake", Attack::Tls(config)),
        Row::refused(&entry, "left when it is answered", hello(true)),
        Row::refused(&entry, "left when it is sent", hello(false)),
    ]
}

fn hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
