//! The message rates of a client: which limits its messages are charged to, and how often it was
//! refused. Knows only the number of its frames.

use tokio::time::Instant;

use super::conversation::MessageKind;
use crate::{
    limits::{HeartbeatBucket, LimitExceeded, MessageCharge, RateLimit, RefusalHistory, UserKey},
    planted::fault,
    relay::Relay,
};

/// Number of pongs and small fragments that are charged as one ping. A message of 64 KiB in
/// fragments of one byte costs 31 of the 60 pings that a connection has by default; all 60 are
/// worth 74 ms of the shard's time.
const FRAMES_PER_HEARTBEAT: u16 = 2048;

/// Counters of a client's messages and refusals.
#[derive(Debug, Default)]
pub(super) struct MessageBudget {
    heartbeats: HeartbeatBucket,
    refusals: RefusalHistory,
    /// Pongs and small fragments that are not charged yet.
    frames: u16,
    /// True once the first Subscribe has come, which is free.
    has_subscribed: bool,
    /// The presence payloads of which a message has come; the first of each is free.
    #[expect(
        clippy::box_collection,
        reason = "every connection has this field, and most never use it"
    )]
    presence: Option<Box<Vec<u32>>>,
}

impl MessageBudget {
    /// Charges a message.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there were too many.
    pub(super) fn charge_message(
        &mut self,
        kind: MessageKind,
        who: &UserKey,
        relay: &Relay,
    ) -> Result<(), LimitExceeded> {
        if fault!(ForgetsToCharge) {
            return Ok(());
        }
        if fault!(ChargesTwice) && kind == MessageKind::Unsubscribe {
            relay.limits.charge_message(who, MessageCharge::User)?;
        }
        match kind {
            MessageKind::Ping => self.charge_ping(relay),
            MessageKind::Subscribe if !self.has_subscribed => {
                self.has_subscribed = true;
                Ok(())
            }
            MessageKind::Subscribe | MessageKind::Unsubscribe | MessageKind::Authenticate => {
                relay.limits.charge_message(who, MessageCharge::User)
            }
            MessageKind::ClientEvent => relay.limits.charge_client_event(who),
            MessageKind::Presence => Ok(()),
            MessageKind::Other => relay
                .limits
                .charge_message(who, MessageCharge::UserAndTenant),
        }
        .inspect_err(|exceeded| relay.metrics.limit_exceeded(exceeded.limit))
    }

    /// Charges a presence message with this payload, which is not the withdrawal of an earlier one.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there were too many.
    pub(super) fn charge_presence(
        &mut self,
        payload: u32,
        who: &UserKey,
        relay: &Relay,
    ) -> Result<(), LimitExceeded> {
        let sent = self.presence.get_or_insert_default();
        if !sent.contains(&payload) {
            sent.push(payload);
            return Ok(());
        }
        self.charge_message(MessageKind::ClientEvent, who, relay)
    }

    /// Charges pongs and small fragments.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there were too many.
    pub(super) fn charge_frames(
        &mut self,
        frames: u16,
        relay: &Relay,
    ) -> Result<(), LimitExceeded> {
        let frames = self.frames.saturating_add(frames);
        let Some(rest) = frames.checked_sub(FRAMES_PER_HEARTBEAT) else {
            self.frames = frames;
            return Ok(());
        };
        self.frames = rest;
        if fault!(ForgetsToCharge) {
            return Ok(());
        }
        self.charge_ping(relay)
            .inspect_err(|exceeded| relay.metrics.limit_exceeded(exceeded.limit))
    }

    fn charge_ping(&mut self, relay: &Relay) -> Result<(), LimitExceeded> {
        let live = relay.live();
        let rate = RateLimit {
            burst: live.config.limits.heartbeat_burst,
            period: live.config.limits.heartbeat_period,
        };
        self.heartbeats.charge_one(rate, Instant::now())
    }

    /// Records a refusal. Returns true if the client has been refused too often.
    pub(super) fn record_refusal(&mut self, relay: &Relay) -> bool {
        let max = relay.live().config.limits.refusals_per_minute;
        self.refusals.record(Instant::now(), max)
    }
}
