//! An admitted client, and its entries in metrics and limits until it is gone. Knows no stream.

use std::{net::IpAddr, rc::Rc};

use sidewire_presence::ConnectionKey;
use sidewire_protocol::{
    EnvelopeEncoding, NamedValues, Topic, close::CloseReason, frame, reply::Reply, wire,
};
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::http_stream::{event_confirmation, poll_confirmation};
use crate::{
    auth::Identity,
    hub::{ConnectionProfile, ConnectionRecord, HubConnection},
    limits::{ConnectionPermit, Limit, UserKey},
    memory::{MemoryExceeded, MemoryUse},
    outbox::{Outbox, WriteProgress},
    relay::{Relay, ShardContext},
    repeated::{RepeatedLine, log_repeated},
    scheduler::Cost,
    telemetry::CloseLabel,
    transport::TransportKind,
};

/// Bytes that a connection takes besides its subscriptions, its messages and its queued frames:
/// for its task, its outbox, and its entries in the hub and in the limits. Measured with 18,000
/// idle connections with one subscription each: 1,801 bytes; with 9,000, the record from which they
/// are listed was found to add 133. Allocated are 2,205 bytes, the subscription included.
pub const CONNECTION_BYTES: usize = 2 * 1024 + 256;

/// A client that passed the handshake. From here on events are queued for it.
#[derive(Debug)]
pub struct AdmittedClient {
    pub(super) identity: Identity,
    pub(super) hub: HubConnection,
    pub(super) outbox: Rc<Outbox>,
    pub(super) account: ConnectionGuard,
    /// True if a connection of its user has ended within the last minute.
    pub(super) has_reconnected: bool,
}

impl AdmittedClient {
    /// Admits the client with this identity, which connects from `peer` by `transport` and uses
    /// `encoding`. If its token subscribes to topics, the confirmation of that is the first frame
    /// queued for it.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there are too many connections, if the tenant is new and
    /// there are too many tenants, or if there is no memory for the connection and its
    /// subscriptions.
    pub fn new(
        shard: &Rc<ShardContext>,
        mut identity: Identity,
        who: UserKey,
        peer: IpAddr,
        encoding: EnvelopeEncoding,
        transport: TransportKind,
    ) -> Result<Self, Limit> {
        let permit = shard.relay.limits.admit_connection(who, peer)?;
        let outbox = Outbox::with_encoding(encoding, &shard.outboxes);
        let outbox = Rc::new(match transport {
            TransportKind::Poll => outbox.for_stored_events(),
            TransportKind::WebSocket | TransportKind::Sse => outbox,
        });
        let profile = ConnectionProfile {
            user: identity.user.clone(),
            address: peer,
            transport,
            since: shard.relay.clock.unix_seconds(),
        };
        let mut hub = shard
            .hub
            .join_tenant(&identity.tenant, profile, Rc::clone(&outbox))
            .map_err(|_| Limit::Tenants)?;
        let claimed = identity.subscriptions.take();
        let confirmation = claimed.as_deref().map(claim_confirmation);
        if let Some(topics) = claimed {
            hub.subscribe_claimed(topics)
                .map_err(|MemoryExceeded| Limit::Memory)?;
        }
        let memory = shard.relay.publisher.memory();
        memory
            .try_hold(MemoryUse::ClientConnections, CONNECTION_BYTES)
            .map_err(|MemoryExceeded| Limit::Memory)?;
        let metrics = &shard.relay.metrics;
        let has_reconnected = metrics.connection_opened(transport, permit.user());
        let account = ConnectionGuard::open(shard, hub.record(), permit);
        if let Some(confirmation) = confirmation {
            hub.charge(account.queue_reply(&confirmation));
        }
        Ok(Self {
            hub,
            account,
            identity,
            outbox,
            has_reconnected,
        })
    }
}

/// Returns the confirmation of the subscriptions that a token contains. It has no position: a
/// client may resume from where it could before.
fn claim_confirmation(topics: &[Topic]) -> Reply {
    Reply::SubscriptionConfirmed {
        lists: Vec::new(),
        fields: wire::SubscriptionConfirmed {
            topics: topics.iter().map(Topic::to_string).collect(),
            ..wire::SubscriptionConfirmed::default()
        },
    }
}

/// Counts the connection when it opens and when it closes, and what happens to its events.
#[derive(Debug)]
pub(super) struct ConnectionGuard {
    pub(super) shard: Rc<ShardContext>,
    /// Also in the record, but needed for each wake.
    outbox: Rc<Outbox>,
    record: Rc<ConnectionRecord>,
    /// Its slot among the connections of its user.
    permit: ConnectionPermit,
    /// Reason for the end of the connection, as far as it is known.
    pub(super) closed: CloseLabel,
    /// Lets the shutdown of the relay wait for the end of the connection.
    _let_in: TaskTrackerToken,
}

impl ConnectionGuard {
    fn open(
        shard: &Rc<ShardContext>,
        record: &Rc<ConnectionRecord>,
        permit: ConnectionPermit,
    ) -> Self {
        let transport = record.profile().transport;
        let tally = shard.hub.tally();
        tally.connections.of(transport).add(1);
        tally.connections_opened.of(transport).add(1);
        Self {
            shard: Rc::clone(shard),
            outbox: Rc::clone(record.outbox()),
            record: Rc::clone(record),
            permit,
            closed: CloseLabel::Lost,
            _let_in: shard.relay.clients.token(),
        }
    }

    pub(super) fn relay(&self) -> &Relay {
        &self.shard.relay
    }

    /// The outbox of the connection.
    pub(super) fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// The id of the connection in the process.
    pub(super) fn key(&self) -> ConnectionKey {
        self.record.key()
    }

    /// The user of the connection.
    pub(super) fn user_key(&self) -> &UserKey {
        self.permit.user()
    }

    /// The address of the client.
    pub(super) fn address(&self) -> IpAddr {
        self.record.profile().address
    }

    /// The transport of the connection.
    pub(super) fn transport(&self) -> TransportKind {
        self.record.profile().transport
    }

    /// Queues a reply for the client. Returns the cost of writing it as JSON.
    pub(super) fn queue_reply(&self, reply: &Reply) -> Cost {
        let relay = self.relay();
        if let Reply::Error(refusal) = reply {
            relay.metrics.message_refused(refusal.code);
        }
        if self.transport() == TransportKind::Poll {
            // It is sent events only.
            if let Reply::SubscriptionConfirmed { fields, .. } = reply
                && let Some(position) = &fields.position
            {
                let replayed = fields.recovered.then_some(fields.replayed);
                let confirmation = poll_confirmation(position, replayed);
                self.outbox().push_reply(confirmation);
            }
            return Cost::ZERO;
        }
        let id = relay.random.uuid_v7(&relay.clock).to_string();
        let envelope = reply.to_envelope(&id, relay.clock.unix_seconds());
        if self.outbox().encoding() == EnvelopeEncoding::Protobuf {
            self.outbox().push_reply(frame::binary_frame(&envelope));
            return Cost::ZERO;
        }
        match relay.live().schema.envelope_to_json_text(&envelope) {
            Ok(json) => {
                self.outbox().push_reply(self.json_frame(reply, &json));
                Cost::JSON_BYTE.times(json.len())
            }
            Err(error) => {
                let connection = self.key();
                log_repeated!(RepeatedLine::AnswerWithoutJson, %connection, %error);
                let signals = self.outbox().signals();
                signals.request_end(CloseReason::InternalError);
                Cost::ZERO
            }
        }
    }

    /// Returns the frame of a reply in JSON.
    fn json_frame(&self, reply: &Reply, json: &str) -> Box<[u8]> {
        match reply {
            // That of the topics in the token has no position: it answers no Subscribe.
            Reply::SubscriptionConfirmed { fields, .. }
                if self.transport() == TransportKind::Sse && fields.position.is_some() =>
            {
                let position = fields.position.as_ref().filter(|_| fields.replayed == 0);
                event_confirmation(json, position)
            }
            _ => frame::text_frame(json),
        }
    }

    /// Counts a write, which without TLS is a system call, and the frames and events that it
    /// wrote.
    pub(super) fn record_write(&self, advanced: WriteProgress) {
        let tally = self.shard.hub.tally();
        tally.writes.add(1);
        tally.frames_written.add(advanced.frames);
        tally.bytes_written.add(advanced.bytes);
        if let Some(placed_at) = advanced.oldest_placed_at {
            // One reading of the clock for each write: it takes longer than the rest of this.
            let latency = placed_at.elapsed();
            let events = advanced.live_events;
            tally.delivery_latency.record_many(latency, events);
        }
        tally.written.add(advanced.events);
        tally.queued.sub(advanced.events);
    }

    /// Notes that the client has not taken what waits for it since then; `None` if it has now.
    pub(super) fn record_blocked(&self, since: Option<Instant>) {
        let blocked = &self.shard.hub.tally().blocked;
        let id = self.record.key().id;
        if let Some(earlier) = self.record.replace_blocked_since(since) {
            blocked.remove(earlier, id);
        }
        if let Some(since) = since {
            blocked.insert(since, id);
        }
    }

    /// Counts a read, which without TLS is a system call.
    pub(super) fn record_read(&self) {
        self.shard.hub.tally().reads.add(1);
    }

    /// Counts this many dropped events, by the reason known so far.
    pub(super) fn record_dropped(&self, events: u64) {
        let tally = self.shard.hub.tally();
        if self.closed.is_too_slow() {
            tally.dropped_slow.add(events);
        } else {
            tally.dropped_closed.add(events);
        }
        tally.queued.sub(events);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.record_dropped(self.outbox().discard_all());
        let memory = self.shard.relay.publisher.memory();
        memory.release(MemoryUse::ClientConnections, CONNECTION_BYTES);
        let transport = self.transport();
        self.shard.hub.tally().connections.of(transport).sub(1);
        let user = self.permit.user();
        self.shard
            .relay
            .metrics
            .connection_closed(self.closed, transport, user);
        if !transport.is_lasting() {
            // Would fill the log.
            return;
        }
        let UserKey { tenant, user } = user;
        let (connection, reason) = (self.key(), self.closed.name());
        let duration_ms = u64::try_from(self.record.age().as_millis()).ok();
        log_repeated!(RepeatedLine::ClientDisconnected, %connection, %tenant, %user, reason, duration_ms);
    }
}
