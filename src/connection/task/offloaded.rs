//! Reads messages of clients on another thread, if that takes long.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use sidewire_protocol::close::CloseReason;

use super::{
    ConnectionPhase, ConnectionTask, client_events::ReadClientEvent, json::DecodedJsonFrame,
    open::OpenConnection,
};
use crate::{
    connection::stream::Transport,
    limits::Limit,
    memory::{MemoryAccount, MemoryExceeded, run_with_memory},
    relay::LiveSettings,
};

/// A message that another thread reads. Nothing more is read from the client until it is done.
pub(super) struct OffloadedMessage(Pin<Box<dyn Future<Output = Option<ReadMessage>>>>);

/// A message that another thread has read.
pub(super) enum ReadMessage {
    Json(DecodedJsonFrame),
    ClientEvent(Box<ReadClientEvent>),
}

impl<S: Transport> ConnectionTask<S> {
    /// Starts reading a message of `len` bytes with `read`, which reserves the memory that it
    /// takes. `done` makes the message from the result.
    pub(super) fn offload_message<T: Send + 'static>(
        &mut self,
        len: usize,
        mut read: impl FnMut(&LiveSettings, &Arc<MemoryAccount>) -> Result<T, MemoryExceeded>
        + Send
        + 'static,
        done: impl FnOnce(Result<T, MemoryExceeded>) -> ReadMessage + 'static,
    ) {
        let shard = &self.account.shard;
        // The message counts towards the memory limit, because any number of connections may wait
        // for the thread.
        let messages = shard.hub.begun_messages();
        let Ok(held) = messages.reserve(self.account.outbox(), len) else {
            shard.relay.metrics.limit_exceeded(Limit::Memory);
            return self.begin_close(CloseReason::NoMemory);
        };
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let work = shard
            .hub
            .work_queue()
            .tenant_work(&self.account.user_key().tenant);
        let shard = Rc::clone(shard);
        let reading = async move {
            let _held = held;
            // Loads the schema only now: the message may have waited for others of the tenant.
            let live = shard.relay.live_shared();
            let timeout = live.config.ingest.inbox_timeout;
            let read = move |memory: &Arc<MemoryAccount>| read(&live, memory);
            let memory = shard.relay.publisher.memory();
            let result =
                run_with_memory(memory, timeout, read, async |job| work.offload(job).await);
            let result = result.await?;
            // Handling it can take as long as reading it.
            work.wait_for_quantum().await;
            Some(done(result))
        };
        open.offloaded = Some(Box::new(OffloadedMessage(Box::pin(reading))));
    }

    /// Handles a message that another thread has read.
    pub(super) fn handle_read_message(&mut self, read: ReadMessage) {
        match read {
            ReadMessage::Json(read) => self.handle_decoded_json(read),
            ReadMessage::ClientEvent(read) => self.handle_read_event(*read),
        }
    }
}

impl OpenConnection {
    /// Polls for the message that another thread reads.
    pub(super) fn poll_offloaded(&mut self, context: &mut Context<'_>) -> Poll<ReadMessage> {
        let Some(offloaded) = &mut self.offloaded else {
            return Poll::Pending;
        };
        let Poll::Ready(read) = offloaded.0.as_mut().poll(context) else {
            return Poll::Pending;
        };
        self.offloaded = None;
        // Without a result, the process is shutting down, and the connection with it.
        read.map_or(Poll::Pending, Poll::Ready)
    }
}
