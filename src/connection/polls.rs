//! Serves polls, which follow each other on one HTTP connection. Each is admitted as a handshake is.

use std::{
    pin::{Pin, pin},
    rc::Rc,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    admission::AdmittedRequest,
    handshake::{
        ConnectingPeer, Verdict, handshake_bytes, run_handshake, run_until_deadline, serve_verdict,
    },
    stream::Transport,
};
use crate::{memory::MemoryUse, relay::ShardContext};

/// Returns the future that answers a poll, and serves the requests that follow it. `held` is dropped at
/// the end. In a box, since serving what follows may mean to answer polls again.
pub(super) fn serve_polls<H: 'static>(
    shard: Rc<ShardContext>,
    admitted: Box<AdmittedRequest>,
    stream: Box<dyn Transport>,
    has_input: bool,
    newcomer: ConnectingPeer,
    held: H,
) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        let (mut admitted, mut stream, mut has_input) = (admitted, stream, has_input);
        loop {
            let Some(answered) = admitted.answer_poll(&shard, stream, has_input).await else {
                return;
            };
            let Some((verdict, next, read_ahead)) = next_request(&shard, answered, newcomer).await
            else {
                return;
            };
            match verdict {
                Verdict::Requested(request) if request.is_poll() => {
                    (admitted, stream, has_input) = (request, next, !read_ahead.is_empty());
                }
                other => {
                    let arrival = ();
                    let served =
                        serve_verdict(shard, other, next, read_ahead, newcomer, held, arrival);
                    if let Some(served) = served.await {
                        served.await;
                    }
                    return;
                }
            }
        }
    })
}

/// Waits for the next request on a connection, for as long as a client may be silent, and reads it.
async fn next_request(
    shard: &Rc<ShardContext>,
    stream: Box<dyn Transport>,
    newcomer: ConnectingPeer,
) -> Option<(Verdict, Box<dyn Transport>, Bytes)> {
    let (until, head_max) = {
        let live = shard.relay.live();
        let client = &live.config.client;
        (Instant::now() + client.idle_timeout, client.head_max)
    };
    let memory = shard.relay.publisher.memory();
    let _memory = memory
        .reserve(MemoryUse::Handshakes, handshake_bytes(head_max))
        .ok()?;
    let next = ConnectingPeer {
        is_counted: false,
        is_address_counted: false,
        ..newcomer
    };
    let request = pin!(run_handshake(Rc::clone(shard), stream, next));
    run_until_deadline(until, request).await?
}
