//! Handshakes that are refused after the upgrade, over a stream in memory.

use std::{cell::Cell, rc::Rc, time::Duration};

use sidewire_testing::{
    http::{Answer, handshake, take_answer},
    websocket::{FIN, TEXT, frame, header},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::{JoinHandle, spawn_local},
    time::Instant,
};

use crate::{
    connection::{
        handshake::{ConnectingPeer, handshake_deadline, serve_stream_until},
        testing::{ConnectionFixture, PEER, settle, simulate},
        tests::certificates,
        wire_testing::{ReceivedFrame, close, decode, take_frame},
    },
    memory::MemoryUse,
    transport::TransportKind,
};

/// A handshake that is refused, since its origin is not allowed without a token.
const ORIGIN: &str = "Origin: https://evil.example\r\n";

const TIMEOUT: Duration = Duration::from_secs(1);

/// What a handshake holds until it is answered.
struct Arrival(Rc<Cell<bool>>);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// A client that was refused, and the relay's end of its connection.
struct RefusedClient {
    stream: DuplexStream,
    unparsed: Vec<u8>,
    serving: JoinHandle<Instant>,
    is_answered: Rc<Cell<bool>>,
}

impl RefusedClient {
    /// Connects and sends a handshake, and the bytes after it, through a stream that holds
    /// `buffer` bytes each way.
    async fn connect(fixture: &ConnectionFixture, buffer: usize, after: &[u8]) -> Self {
        let (mut stream, theirs) = duplex(buffer);
        let shard = Rc::clone(&fixture.shard);
        let is_answered = Rc::new(Cell::new(false));
        let arrival = Arrival(Rc::clone(&is_answered));
        let newcomer = ConnectingPeer {
            peer: PEER,
            is_counted: false,
            is_address_counted: false,
        };
        let serving = spawn_local(async move {
            let until = handshake_deadline(&shard);
            let talk = serve_stream_until(until, shard, theirs, newcomer, (), arrival).await;
            assert!(talk.is_none());
            Instant::now()
        });
        stream
            .write_all(handshake(ORIGIN).as_bytes())
            .await
            .unwrap();
        stream.write_all(after).await.unwrap();
        Self {
            stream,
            unparsed: Vec::new(),
            serving,
            is_answered,
        }
    }

    async fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = take_answer(&mut self.unparsed, true).unwrap() {
                return answer;
            }
            assert_ne!(self.stream.read_buf(&mut self.unparsed).await.unwrap(), 0);
        }
    }

    /// Checks that it was refused after the upgrade, with a Close frame right after the answer.
    async fn sees_the_refusal(&mut self) {
        assert_eq!(self.answer().await.status, 101);
        read_close_frame(&mut self.stream, &mut self.unparsed).await;
        assert!(self.is_answered.get(), "nothing else waits for the client");
    }

    /// Waits until the relay has released the connection, which ends the stream.
    async fn ended(mut self) -> Instant {
        let at = (&mut self.serving).await.unwrap();
        assert_eq!(self.stream.read_buf(&mut self.unparsed).await.unwrap(), 0);
        assert_eq!(self.unparsed, b"");
        at
    }
}

/// Reads the Close frame, which must be the next.
async fn read_close_frame(stream: &mut (impl AsyncRead + Unpin), unparsed: &mut Vec<u8>) {
    let frame = loop {
        if let Some(frame) = take_frame(unparsed) {
            break decode(frame);
        }
        assert_ne!(stream.read_buf(unparsed).await.unwrap(), 0);
    };
    let reason = "AUTHORIZATION_FAILED".to_owned();
    assert_eq!(frame, ReceivedFrame::Close(4403, reason));
}

/// Checks that nothing of a refused handshake is left, and that none was counted as a connection.
fn check_refused(fixture: &ConnectionFixture, times: u64) {
    let refused = fixture.metric("sidewire_handshakes_refused_total{status=\"403\"}");
    assert_eq!(refused, times);
    let opened = &fixture.tally().connections_opened;
    assert_eq!(opened.of(TransportKind::WebSocket).get(), 0);
    assert_eq!(fixture.metric("sidewire_handshakes_timed_out_total"), 0);
    fixture.check_nothing_is_left();
    assert!(
        fixture
            .shard
            .relay
            .limits
            .open_refusals
            .try_acquire(1)
            .is_some()
    );
}

#[test]
fn a_refused_client_that_closes_is_released_at_once() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let begun = Instant::now();
        // What it sent before its Close is not looked at, however malformed.
        let sent = [frame(FIN | TEXT, b"{"), frame(0x7f, &[9; 300]), close(4403)];
        let whole = sent.concat();
        for at in [0, 1, 10, whole.len() - 1, whole.len()] {
            let (early, late) = whole.split_at(at);
            let mut client = RefusedClient::connect(&fixture, 4096, early).await;
            client.sees_the_refusal().await;
            assert!(at == whole.len() || !client.serving.is_finished());
            client.stream.write_all(late).await.unwrap();
            assert_eq!(client.ended().await, begun);
        }
        check_refused(&fixture, 5);
    });
}

#[test]
fn a_refused_client_that_leaves_is_released_at_once() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let begun = Instant::now();
        let mut half_open = RefusedClient::connect(&fixture, 4096, b"").await;
        half_open.sees_the_refusal().await;
        half_open.stream.shutdown().await.unwrap();
        assert_eq!(half_open.ended().await, begun);
        let gone = RefusedClient::connect(&fixture, 4096, b"").await;
        settle().await;
        drop(gone.stream);
        assert_eq!(gone.serving.await.unwrap(), begun);
        check_refused(&fixture, 2);
    });
}

#[test]
fn a_refused_client_that_never_closes_is_released_after_a_second() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let begun = Instant::now();
        let mut silent = RefusedClient::connect(&fixture, 4096, b"").await;
        // A frame that never ends: nothing in it is taken for a Close frame.
        let endless = [header(FIN | TEXT, true, 1 << 40), close(1000)].concat();
        let mut talking = RefusedClient::connect(&fixture, 4096, &endless).await;
        silent.sees_the_refusal().await;
        talking.sees_the_refusal().await;
        let memory = fixture.shard.relay.publisher.memory();
        assert!(memory.held_bytes(MemoryUse::Handshakes) > 0);
        assert_eq!(silent.ended().await, begun + TIMEOUT);
        assert_eq!(talking.ended().await, begun + TIMEOUT);
        check_refused(&fixture, 2);
    });
}

#[test]
fn a_refused_client_that_floods_is_read_up_to_a_bound() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let begun = Instant::now();
        let mut client = RefusedClient::connect(&fixture, 4096, b"").await;
        client.sees_the_refusal().await;
        let message = frame(FIN | TEXT, &[b'x'; 1000]);
        let mut accepted = 0;
        while let Ok(sent) = client.stream.write(&message).await {
            accepted += sent;
        }
        assert!((64 << 10..80 << 10).contains(&accepted), "{accepted}");
        assert_eq!(client.ended().await, begun + TIMEOUT);
        check_refused(&fixture, 1);
    });
}

#[test]
fn a_refused_client_that_does_not_read_is_released_after_a_second() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let begun = Instant::now();
        // The answer, of some 170 bytes, fits into the stream with a part of the Close frame.
        let client = RefusedClient::connect(&fixture, 180, b"").await;
        settle().await;
        assert!(!client.is_answered.get());
        assert_eq!(client.serving.await.unwrap(), begun + TIMEOUT);
        assert!(client.is_answered.get());
        check_refused(&fixture, 1);
    });
}

#[test]
fn refusals_beyond_the_bound_are_answered_over_http() {
    simulate(async {
        let fixture = ConnectionFixture::with_settings(|config| config.limits.refusals_open = 2);
        let connect = || RefusedClient::connect(&fixture, 4096, b"");
        let (mut first, mut second) = (connect().await, connect().await);
        first.sees_the_refusal().await;
        second.sees_the_refusal().await;
        let mut third = connect().await;
        let answer = third.answer().await;
        assert_eq!(answer.status, 403);
        assert_eq!(answer.headers["connection"], "close");
        assert_eq!(answer.problem_code(), "AUTHORIZATION_FAILED");
        third.ended().await;
        first.stream.write_all(&close(4403)).await.unwrap();
        first.ended().await;
        let mut fourth = connect().await;
        fourth.sees_the_refusal().await;
        // A reload applies to the next one.
        fixture.reload(|config| config.limits.refusals_open = 0);
        second.ended().await;
        fourth.ended().await;
        let mut fifth = connect().await;
        assert_eq!(fifth.answer().await.status, 403);
        fifth.ended().await;
        check_refused(&fixture, 5);
    });
}

#[test]
fn without_memory_a_refused_client_is_told_and_not_waited_for() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        fixture.bound_memory(5_000);
        let begun = Instant::now();
        let mut client = RefusedClient::connect(&fixture, 4096, b"").await;
        client.sees_the_refusal().await;
        assert_eq!(client.ended().await, begun);
        check_refused(&fixture, 1);
    });
}

#[tokio::test(flavor = "local")]
async fn a_refusal_over_tls_ends_cleanly() {
    let (fixture, certified) = (ConnectionFixture::new(), certificates::certified());
    fixture.shard.relay.replace_settings(certified.live);
    let (mut client, _) = certificates::connect(&fixture, &certified.cert_pem).await;
    client
        .write_all(handshake(ORIGIN).as_bytes())
        .await
        .unwrap();
    client.flush().await.unwrap();
    let mut unparsed = Vec::new();
    let answer = loop {
        if let Some(answer) = take_answer(&mut unparsed, true).unwrap() {
            break answer;
        }
        assert_ne!(client.read_buf(&mut unparsed).await.unwrap(), 0);
    };
    assert_eq!(answer.status, 101);
    read_close_frame(&mut client, &mut unparsed).await;
    client.write_all(&close(4403)).await.unwrap();
    client.flush().await.unwrap();
    // Fails if the end of TLS was not announced.
    assert_eq!(client.read_buf(&mut unparsed).await.unwrap(), 0);
    settle().await;
    check_refused(&fixture, 1);
}
