//! The memory that connections reserve from the process's limit.

use std::rc::Rc;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    task::spawn_local,
};

use crate::{
    connection::{
        serve_stream,
        testing::{ConnectionFixture, PEER, WIDE, settle, simulate},
        wire_testing::{BINARY, CONTINUATION, ReceivedFrame, close, frame, subscribe},
    },
    memory::MemoryUse,
};

const NO_MEMORY: &str = "too slow: the relay needed the memory";

fn begun_bytes(fixture: &ConnectionFixture) -> u64 {
    let memory = fixture.shard.relay.publisher.memory();
    memory.held_bytes(MemoryUse::BegunMessages)
}

/// A message of 60,000 bytes, without its last byte.
fn begun() -> Vec<u8> {
    let mut message = frame(BINARY, true, &[1; 60_000]);
    message.pop();
    message
}

#[test]
fn a_message_is_charged_to_memory_while_it_arrives_unless_it_arrives_at_once() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        let mut client = fixture.connect(WIDE);
        client.send(subscribe("s", "project:p1")).await;
        assert_eq!(
            client.next_frames(1).await,
            [ReceivedFrame::Subscribed("s".to_owned())]
        );
        assert_eq!(begun_bytes(&fixture), 0);

        // The announced length counts from the first bytes on.
        client.send(&begun()[..20]).await;
        settle().await;
        assert!((60_000..70_000).contains(&begun_bytes(&fixture)));
        client.send(&begun()[20..]).await;
        settle().await;
        assert!((60_000..70_000).contains(&begun_bytes(&fixture)));
        client.send([1]).await;
        settle().await;
        assert_eq!(begun_bytes(&fixture), 0);

        // Fragments are joined in a buffer that doubles.
        client.send(frame(BINARY, false, &[1; 10_000])).await;
        client.send(frame(CONTINUATION, false, &[1; 10_000])).await;
        settle().await;
        assert!((40_000..50_000).contains(&begun_bytes(&fixture)));
        drop(client);
        settle().await;
        assert_eq!(begun_bytes(&fixture), 0);
        fixture.check_nothing_is_left();
    });
}

#[test]
fn without_memory_the_connection_with_the_oldest_begun_message_is_closed() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        // Room for two such messages, when nothing else is held.
        fixture.bound_memory(400_000);
        let mut clients = [(); 3].map(|()| fixture.connect(WIDE));
        for client in &mut clients {
            client.send(begun()).await;
            settle().await;
        }
        let [oldest, other, newest] = &mut clients;
        assert_eq!(
            oldest.next().await,
            Some(ReceivedFrame::Close(4003, NO_MEMORY.to_owned()))
        );
        assert_eq!(
            fixture.metric("sidewire_limits_exceeded_total{limit=\"memory\"}"),
            0
        );
        assert!((120_000..140_000).contains(&begun_bytes(&fixture)));
        // The rest of its message is discarded, and it may close in its own time.
        oldest.send([1]).await;
        oldest.send(close(4003)).await;
        oldest.half_close().await;
        assert!(!oldest.wait_for_end().await.was_reset);
        assert_eq!(fixture.closed("no_memory"), 1);
        for client in [other, newest] {
            client.send([1]).await;
            assert!(matches!(
                client.next().await,
                Some(ReceivedFrame::Refused(_))
            ));
        }
        settle().await;
        assert_eq!(begun_bytes(&fixture), 0);
    });
}

#[test]
fn a_message_for_which_there_is_no_memory_at_all_closes_its_connection() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        fixture.bound_memory(50_000);
        let mut client = fixture.connect(WIDE);
        client.send(begun()).await;
        assert_eq!(
            client.next().await,
            Some(ReceivedFrame::Close(4003, NO_MEMORY.to_owned()))
        );
        assert_eq!(
            fixture.metric("sidewire_limits_exceeded_total{limit=\"memory\"}"),
            1
        );
        assert_eq!(begun_bytes(&fixture), 0);
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}

#[test]
fn a_connection_for_which_there_is_no_memory_is_refused_with_503() {
    simulate(async {
        let fixture = ConnectionFixture::new();
        fixture.bound_memory(5_000);
        let (mut ours, theirs) = duplex(4096);
        let served = serve_stream(Rc::clone(&fixture.shard), theirs, PEER, ());
        spawn_local(async move { drop(served.await) });
        ours.write_all(sidewire_testing::http::handshake("").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("limits.memory_max"), "{answer}");
        fixture.check_nothing_is_left();
        // The memory of a connection is released when it ends.
        fixture.bound_memory(100_000);
        let memory = fixture.shard.relay.publisher.memory();
        let client = fixture.connect(WIDE);
        assert!(memory.held_bytes(MemoryUse::ClientConnections) > 0);
        drop(client);
        settle().await;
        fixture.check_nothing_is_left();
    });
}
