//! An open connection of a [`RelayClient`](super::RelayClient): it sends what is due and detects
//! that the relay is gone.

use sidewire_protocol::wire;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until},
};

use super::{
    ControlMessage,
    connection::RelayConnection,
    options::ClientOptions,
    presence::KeptPresence,
    received::{RelayMessage, SendError},
    reconnect::DisconnectReason,
    subscriptions::ClientSubscriptions,
};

/// An open connection and its heartbeat.
pub(super) struct LiveConnection<S> {
    pub(super) connection: RelayConnection<S>,
    next_ping: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LiveConnection<S> {
    pub(super) fn new(connection: RelayConnection<S>, options: &ClientOptions) -> Self {
        Self {
            connection,
            next_ping: Instant::now() + options.heartbeat,
        }
    }

    /// Waits for the next message, and meanwhile sends what is due. Cancel-safe.
    pub(super) async fn next_message(
        &mut self,
        options: &ClientOptions,
        subscriptions: &mut ClientSubscriptions,
        presence: &mut KeptPresence,
    ) -> Result<RelayMessage, DisconnectReason> {
        loop {
            self.queue_due(options, subscriptions, presence)?;
            let dead_at = self.connection.last_frame() + options.dead_after;
            let wake_at = self.next_ping.min(dead_at);
            let wake_at = subscriptions
                .wake_at()
                .map_or(wake_at, |it| it.min(wake_at));
            tokio::select! {
                biased;
                received = self.connection.receive() => return Ok(received?),
                () = sleep_until(wake_at) => {}
            }
            if self.connection.last_frame() + options.dead_after <= Instant::now() {
                return Err(DisconnectReason::Dead(options.dead_after));
            }
        }
    }

    fn queue_due(
        &mut self,
        options: &ClientOptions,
        subscriptions: &mut ClientSubscriptions,
        presence: &mut KeptPresence,
    ) -> Result<(), SendError> {
        let now = Instant::now();
        while let Some((request, control)) = subscriptions.next_request(now) {
            let message_id = self.connection.queue_control(control)?;
            subscriptions.on_sent(message_id, request);
        }
        // A presence message counts for the topics that are subscribed when it arrives.
        if subscriptions.is_settled() {
            while let Some(envelope) = presence.next_envelope() {
                self.connection.queue_envelope(envelope)?;
            }
        }
        if self.next_ping <= now {
            let timestamp = options.clock.unix_seconds();
            self.connection
                .queue_control(ControlMessage::Ping(wire::Ping { timestamp }))?;
            self.next_ping = now + options.heartbeat;
        }
        Ok(())
    }
}
