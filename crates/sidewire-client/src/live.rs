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
    options::{ClientOptions, Credential},
    presence::KeptPresence,
    received::{RelayMessage, SendError},
    reconnect::DisconnectReason,
    renewal::{FailedRenewal, TokenRenewal},
    subscriptions::ClientSubscriptions,
};

/// An open connection, its heartbeat, and the renewal of its token.
pub(super) struct LiveConnection<S> {
    pub(super) connection: RelayConnection<S>,
    pub(super) renewal: TokenRenewal,
    next_ping: Instant,
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum LiveEvent {
    /// The relay sent a message.
    Message(RelayMessage),
    /// The relay took a new token; `None` if it answered to something else.
    Renewed(Option<Credential>, wire::Authenticated),
    /// The token was not renewed.
    RenewalFailed(FailedRenewal),
}

impl<S: AsyncRead + AsyncWrite + Unpin> LiveConnection<S> {
    pub(super) fn new(connection: RelayConnection<S>, options: &ClientOptions) -> Self {
        Self {
            connection,
            renewal: TokenRenewal::new(options.token.as_ref(), options.fresh_token.is_some()),
            next_ping: Instant::now() + options.heartbeat,
        }
    }

    /// Waits for what happens next, and meanwhile sends what is due. Cancel-safe.
    pub(super) async fn next_event(
        &mut self,
        options: &ClientOptions,
        subscriptions: &mut ClientSubscriptions,
        presence: &mut KeptPresence,
    ) -> Result<LiveEvent, DisconnectReason> {
        loop {
            self.queue_due(options, subscriptions, presence)?;
            let dead_at = self.connection.last_frame() + options.dead_after;
            let wake_at = [subscriptions.wake_at(), self.renewal.wake_at()]
                .into_iter()
                .flatten()
                .fold(self.next_ping.min(dead_at), Instant::min);
            tokio::select! {
                biased;
                received = self.connection.receive() => {
                    return Ok(self.on_received(received?, options));
                }
                fetched = self.renewal.fetched() => {
                    let now = Instant::now();
                    if let Some(failed) = self.renewal.on_fetched(fetched, now, &options.random) {
                        return Ok(LiveEvent::RenewalFailed(failed));
                    }
                }
                () = sleep_until(wake_at) => {}
            }
            if self.connection.last_frame() + options.dead_after <= Instant::now() {
                return Err(DisconnectReason::Dead(options.dead_after));
            }
        }
    }

    fn on_received(&mut self, received: RelayMessage, options: &ClientOptions) -> LiveEvent {
        let (now, random) = (Instant::now(), &options.random);
        let relay_time = self.connection.relay_time();
        if let Some(time) = relay_time {
            self.renewal.on_relay_time(time, now, random);
        }
        match received {
            RelayMessage::Authenticated(answer) => {
                let time = relay_time.unwrap_or_default();
                let token = self.renewal.on_authenticated(&answer, time, now, random);
                LiveEvent::Renewed(token, answer)
            }
            RelayMessage::Error(error) => match self.renewal.on_refused(&error, now, random) {
                Some(failed) => LiveEvent::RenewalFailed(failed),
                None => LiveEvent::Message(RelayMessage::Error(error)),
            },
            received => LiveEvent::Message(received),
        }
    }

    fn queue_due(
        &mut self,
        options: &ClientOptions,
        subscriptions: &mut ClientSubscriptions,
        presence: &mut KeptPresence,
    ) -> Result<(), SendError> {
        let now = Instant::now();
        if let Some(source) = &options.fresh_token {
            self.renewal.begin_if_due(source.as_ref(), now);
        }
        if let Some(control) = self.renewal.request() {
            let message_id = self.connection.queue_control(control)?;
            self.renewal.on_sent(message_id);
        }
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
