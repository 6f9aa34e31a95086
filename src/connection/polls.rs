//! Serves polls, which follow each other on one HTTP connection. Each is admitted as a handshake is.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    admission::AdmittedRequest,
    admitted::CONNECTION_BYTES,
    handshake::{
        ConnectingPeer, Verdict, handshake_bytes, handshake_deadline, run_handshake,
        run_until_deadline, serve_verdict,
    },
    read_ahead::ReadAheadStream,
};
use crate::{
    limits::Limit,
    memory::{MemoryExceeded, MemoryReservation, MemoryUse},
    relay::ShardContext,
};

/// Returns the future that answers a poll, and serves the requests that follow it. `held` is dropped at
/// the end. In a box, since its type would otherwise contain itself.
pub(super) fn serve_polls<H: 'static>(
    shard: Rc<ShardContext>,
    admitted: Box<AdmittedRequest>,
    stream: ReadAheadStream,
    has_input: bool,
    newcomer: ConnectingPeer,
    held: H,
) -> Pin<Box<dyn Future<Output = ()>>> {
    // The first request was charged like a handshake, and each of the others follows an answer: one
    // that is refused ends the connection.
    let newcomer = ConnectingPeer {
        is_counted: true,
        is_address_counted: true,
        ..newcomer
    };
    Box::pin(async move {
        let (mut admitted, mut stream, mut has_input) = (admitted, stream, has_input);
        loop {
            let Some(answered) = admitted.answer_poll(&shard, stream, has_input).await else {
                return;
            };
            // In a box of its own: the state of a handshake is large, and a poll waits for long.
            let next = Box::pin(next_request(&shard, answered, newcomer));
            let Some((verdict, next, read_ahead)) = next.await else {
                return;
            };
            match verdict {
                Verdict::Requested(poll) if poll.is_poll() => {
                    (admitted, stream, has_input) = (poll, next, !read_ahead.is_empty());
                }
                // Another transport follows on the connection.
                other => {
                    let served = serve_verdict(shard, other, next, read_ahead, newcomer, held, ());
                    if let Some(served) = served.await {
                        served.await;
                    }
                    return;
                }
            }
        }
    })
}

/// Waits for the next request on a connection, for as long as a client may be silent, and reads it like
/// the first one.
async fn next_request(
    shard: &Rc<ShardContext>,
    mut stream: ReadAheadStream,
    newcomer: ConnectingPeer,
) -> Option<(Verdict, ReadAheadStream, Bytes)> {
    let (idle_timeout, head_max) = {
        let live = shard.relay.live();
        let client = &live.config.client;
        (client.idle_timeout, client.head_max)
    };
    wait_for_bytes(shard, &mut stream, idle_timeout, head_max).await?;
    let _memory = reserve_memory(shard, MemoryUse::Handshakes, handshake_bytes(head_max))?;
    let until = handshake_deadline(shard);
    let request = pin!(run_handshake(Rc::clone(shard), stream, newcomer));
    let Some(next) = run_until_deadline(until, request).await else {
        shard.relay.metrics.handshake_timed_out();
        return None;
    };
    next
}

/// Waits until a client that may be idle sends something. Returns `None` if it does not, or has gone.
async fn wait_for_bytes(
    shard: &Rc<ShardContext>,
    stream: &mut ReadAheadStream,
    idle_timeout: Duration,
    bytes_max: usize,
) -> Option<()> {
    let _memory = reserve_memory(shard, MemoryUse::ClientConnections, CONNECTION_BYTES)?;
    let read = poll_fn(|context| stream.poll_read_ahead(context, &shard.read_buffer, bytes_max));
    let has_more = timeout(idle_timeout, read).await.ok()?.ok()?;
    has_more.then_some(())
}

fn reserve_memory(
    shard: &ShardContext,
    what: MemoryUse,
    bytes: usize,
) -> Option<MemoryReservation> {
    let reserved = shard.relay.publisher.memory().reserve(what, bytes);
    let counted = reserved.inspect_err(|MemoryExceeded| {
        shard.relay.metrics.limit_exceeded(Limit::Memory);
    });
    counted.ok()
}
