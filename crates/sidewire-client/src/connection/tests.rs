//! A connection to a fake relay.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    join,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::testing::{Peer, options, read_head};

async fn connected() -> (RelayConnection<DuplexStream>, Peer) {
    let (ours, theirs) = duplex(64 * 1024);
    let options = options();
    let (connection, peer) = join!(
        RelayConnection::open_over(ours, &options),
        Peer::accept(theirs)
    );
    (connection.unwrap(), peer)
}

/// Opens a connection to a server that sends what `answer` returns for the request's key.
async fn open(
    answer: impl FnOnce(&str) -> Vec<Vec<u8>>,
) -> Result<RelayConnection<DuplexStream>, OpenError> {
    let (ours, mut theirs) = duplex(64 * 1024);
    let options = options();
    let serving = async {
        let head = read_head(&mut theirs).await;
        let key = head
            .lines()
            .find_map(|line| line.strip_prefix("sec-websocket-key: "))
            .unwrap();
        for part in answer(key) {
            theirs.write_all(&part).await.unwrap();
            tokio::task::yield_now().await;
        }
        theirs
    };
    let (connection, mut theirs) = join!(RelayConnection::open_over(ours, &options), serving);
    if connection.is_err() {
        // A failed handshake closes the stream.
        assert_eq!(theirs.read(&mut [0; 64]).await.unwrap(), 0);
    }
    connection
}

fn switching(accept: &str, subprotocol: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{subprotocol}\r\n"
    )
    .into_bytes()
}

const ECHO: &str = "Sec-WebSocket-Protocol: sidewire.v1.protobuf\r\n";

#[tokio::test(start_paused = true)]
async fn a_frame_right_after_the_handshake_is_not_lost() {
    let mut connection = open(|key| {
        let mut bytes = switching(&derive_accept_key(key.as_bytes()), ECHO);
        bytes.extend([0x82, 3, 0x0a, 1, b'm']);
        vec![bytes]
    })
    .await
    .unwrap();
    assert_eq!(connection.receive_raw().await.unwrap(), &b"\x0a\x01m"[..]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_upgrade_to_the_subprotocol_is_refused() {
    let answers: [fn(&str) -> Vec<u8>; 5] = [
        |key| switching(&derive_accept_key(key.as_bytes()), ""),
        |key| {
            switching(
                &derive_accept_key(key.as_bytes()),
                "Sec-WebSocket-Protocol: sidewire.v1.json\r\n",
            )
        },
        |_| switching("AAAAAAAAAAAAAAAAAAAAAAAAAAA=", ECHO),
        |_| {
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
                .to_vec()
        },
        |_| b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n".to_vec(),
    ];
    for answer in answers {
        let refused = open(|key| vec![answer(key)]).await.unwrap_err();
        assert!(
            matches!(refused, OpenError::Protocol(_) | OpenError::Lost(_)),
            "{refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_whole_however_it_is_sent() {
    let document = r#"{"code":"RATE_LIMIT_EXCEEDED","detail":"too many"}"#;
    let (begin, end) = document.split_at(20);
    let head = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n";
    let answers = [
        vec![
            format!("{head}Content-Length: {}\r\n\r\n", document.len()),
            begin.to_owned(),
            end.to_owned(),
        ],
        vec![format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n14\r\n{begin}\r\n{:x}\r\n{end}\r\n0\r\n\r\n",
            end.len()
        )],
    ];
    for answer in answers {
        let refused = open(|_| answer.into_iter().map(String::into_bytes).collect()).await;
        let Err(OpenError::Refused(problem)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(problem.to_string(), "429 RATE_LIMIT_EXCEEDED: too many");
        assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
    }
}

#[tokio::test]
async fn an_unreachable_address_is_reported() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut options = options();
    options.url = format!("ws://{address}/ws");
    let unreachable = RelayConnection::open(&options).await.unwrap_err();
    assert!(
        unreachable
            .to_string()
            .starts_with(&format!("cannot connect to {address}: ")),
        "{unreachable}"
    );
}

#[tokio::test]
async fn a_connection_over_tcp_opens() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options();
    options.url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
        // Closing a socket with unread bytes would reset the connection.
        let read = stream.read(&mut [0; 4096]).await.unwrap();
        assert!(read > 0);
    };
    let (opened, ()) = join!(RelayConnection::open(&options), serving);
    assert!(
        matches!(opened, Err(OpenError::Unauthorized(_))),
        "{opened:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn every_websocket_limit_is_set() {
    let (connection, _peer) = connected().await;
    let (set, default) = (connection.socket.get_config(), WebSocketConfig::default());
    assert_ne!(set.read_buffer_size, default.read_buffer_size);
    assert_ne!(set.write_buffer_size, default.write_buffer_size);
    assert_ne!(set.max_write_buffer_size, default.max_write_buffer_size);
    assert_ne!(set.max_message_size, default.max_message_size);
    assert_ne!(set.max_frame_size, default.max_frame_size);
}

#[tokio::test(start_paused = true)]
async fn control_messages_are_sent_and_answers_received() {
    let (mut connection, mut peer) = connected().await;
    let id = connection.subscribe(["kind:1", "kind:2"]).await.unwrap();
    assert_eq!(peer.confirm().await, ["kind:1", "kind:2"]);
    let RelayMessage::SubscriptionConfirmed(confirmed) = connection.receive().await.unwrap() else {
        panic!("no confirmation");
    };
    assert_eq!(confirmed.request_message_id, id);
    assert_eq!(confirmed.position.unwrap().offset, 7);

    let id = connection.unsubscribe(["kind:1"]).await.unwrap();
    let topics = vec!["kind:1".to_owned()];
    let unsubscribe = ControlMessage::Unsubscribe(wire::Unsubscribe { topics });
    assert_eq!(peer.received().await, (id, unsubscribe));

    connection.send_ping().await.unwrap();
    let (_, ControlMessage::Ping(ping)) = peer.received().await else {
        panic!("no Ping");
    };
    let pong = wire::Pong {
        timestamp: 1,
        client_timestamp: ping.timestamp,
        position: None,
    };
    peer.control(ControlMessage::Pong(pong.clone())).await;
    assert_eq!(
        connection.receive().await.unwrap(),
        RelayMessage::Pong(pong)
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_is_returned_unchanged() {
    let (mut connection, mut peer) = connected().await;
    let envelope = peer.event(42).await;
    let RelayMessage::Event(event) = connection.receive().await.unwrap() else {
        panic!("no event");
    };
    assert_eq!(event.envelope, envelope);
    assert_eq!(
        (event.message_id.as_str(), event.timestamp),
        ("event-42", 2)
    );
    assert_eq!(event.position.unwrap().offset, 42);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_receive_loses_nothing() {
    let (mut connection, mut peer) = connected().await;
    let sending = async {
        for offset in 1..=300 {
            peer.event(offset).await;
        }
        peer
    };
    let receiving = async {
        let mut offsets = Vec::new();
        while offsets.len() < 300 {
            tokio::select! {
                biased;
                received = connection.receive() => match received.unwrap() {
                    RelayMessage::Event(event) => offsets.push(event.position.unwrap().offset),
                    other => panic!("{other:?}"),
                },
                () = tokio::task::yield_now() => {}
            }
        }
        offsets
    };
    let (_peer, offsets) = join!(sending, receiving);
    assert_eq!(offsets, (1..=300).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_message_of_eight_mebibytes_is_received_and_a_larger_one_is_not() {
    let (mut connection, mut peer) = connected().await;
    let biggest = Bytes::from(vec![0; MESSAGE_BYTES_MAX]);
    let (received, ()) = join!(
        connection.receive_raw(),
        peer.send(Message::Binary(biggest.clone()))
    );
    assert_eq!(received.unwrap().len(), biggest.len());

    let too_big = Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]);
    let received = tokio::select! {
        received = connection.receive_raw() => received,
        () = peer.send(Message::Binary(too_big)) => panic!("taken"),
    };
    assert!(
        matches!(received, Err(ReceiveError::Protocol(_))),
        "{received:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_message_that_no_relay_sends_is_an_error() {
    let wrong = [
        Message::text("{}"),
        Message::Binary(Bytes::from_static(b"\x0a\xff")),
        Message::Binary(Bytes::from_static(b"\x72\x00")),
    ];
    for message in wrong {
        let (mut connection, mut peer) = connected().await;
        peer.send(message.clone()).await;
        let received = connection.receive().await;
        assert!(
            matches!(received, Err(ReceiveError::Protocol(_))),
            "{message:?}: {received:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_is_returned_with_code_and_reason_and_is_answered() {
    let (mut connection, mut peer) = connected().await;
    peer.event(1).await;
    peer.close(4003, "too slow").await;
    assert!(matches!(
        connection.receive().await,
        Ok(RelayMessage::Event(_))
    ));
    for _ in 0..2 {
        let closed = connection.receive().await.unwrap_err();
        assert_eq!(
            closed.to_string(),
            r#"the relay closed the connection with 4003 "too slow""#
        );
    }
    let Message::Close(Some(answer)) = peer.0.next().await.unwrap().unwrap() else {
        panic!("no answer");
    };
    assert_eq!(u16::from(answer.code), 4003);
}

#[tokio::test(start_paused = true)]
async fn a_close_without_a_code_is_1005_and_a_broken_connection_counts_as_lost() {
    let (mut connection, mut peer) = connected().await;
    peer.send(Message::Close(None)).await;
    let closed = connection.receive().await;
    assert!(
        matches!(closed, Err(ReceiveError::Closed { code: 1005, .. })),
        "{closed:?}"
    );

    let (mut connection, peer) = connected().await;
    drop(peer);
    let lost = connection.receive().await;
    assert!(matches!(lost, Err(ReceiveError::Lost(_))), "{lost:?}");
    assert!(matches!(
        connection.send_ping().await,
        Err(SendError::Ended(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_close_of_the_relay_up_to_a_timeout() {
    let (connection, mut peer) = connected().await;
    let answering = async { while peer.0.next().await.is_some_and(|frame| frame.is_ok()) {} };
    assert_eq!(join!(connection.close(1000), answering).0, Some(1000));

    let (connection, _peer) = connected().await;
    let begun = Instant::now();
    assert_eq!(connection.close(1000).await, None);
    assert_eq!(begun.elapsed(), CLOSE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn raw_bytes_and_text_can_be_sent() {
    let (mut connection, mut peer) = connected().await;
    connection.send_raw(&b"\xff"[..]).await.unwrap();
    connection.send_text("hello").await.unwrap();
    let mut next = async || peer.0.next().await.unwrap().unwrap();
    assert_eq!(next().await, Message::binary(&b"\xff"[..]));
    assert_eq!(next().await, Message::text("hello"));
}
