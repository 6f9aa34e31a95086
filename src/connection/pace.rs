//! The message rates of a client: which limits its messages are charged to, and how often it was
//! refused. Knows only the number of its frames.

use tokio::time::Instant;

use super::conversation::Kind;
use crate::{
    limits::{Charge, Exceeded, Heartbeats, Rate, Refusals, UserKey},
    planted::{Fault, is_planted},
    relay::Relay,
};

/// Number of pongs and small fragments that are charged as one ping. A message of 64 KiB in
/// fragments of one byte costs 31 of the 60 pings that a connection has by default; all 60 are
/// worth 74 ms of the shard's time.
const FRAMES_A_HEARTBEAT: u16 = 2048;

/// Counters of a client's messages and refusals.
#[derive(Debug, Default)]
pub(super) struct Pace {
    heartbeats: Heartbeats,
    refusals: Refusals,
    /// Pongs and small fragments that are not charged yet.
    frames: u16,
    /// True once the first Subscribe has come, which is free.
    has_subscribed: bool,
}

impl Pace {
    /// Charges a message.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there were too many.
    pub(super) fn charge(
        &mut self,
        kind: Kind,
        who: &UserKey,
        relay: &Relay,
    ) -> Result<(), Exceeded> {
        if is_planted(Fault::ForgetsToCharge) {
            return Ok(());
        }
        if is_planted(Fault::ChargesTwice) && kind == Kind::Unsubscribe {
            relay.limits.message(who, Charge::User)?;
        }
        match kind {
            Kind::Ping => self.ping(relay),
            Kind::Subscribe if !self.has_subscribed => {
                self.has_subscribed = true;
                Ok(())
            }
            Kind::Subscribe | Kind::Unsubscribe => relay.limits.message(who, Charge::User),
            Kind::Other => relay.limits.message(who, Charge::UserAndTenant),
        }
        .inspect_err(|exceeded| relay.metrics.exceeded(exceeded.limit))
    }

    /// Charges pongs and small fragments.
    ///
    /// # Errors
    ///
    /// Returns the exceeded limit if there were too many.
    pub(super) fn charge_frames(&mut self, frames: u16, relay: &Relay) -> Result<(), Exceeded> {
        let frames = self.frames.saturating_add(frames);
        let Some(rest) = frames.checked_sub(FRAMES_A_HEARTBEAT) else {
            self.frames = frames;
            return Ok(());
        };
        self.frames = rest;
        if is_planted(Fault::ForgetsToCharge) {
            return Ok(());
        }
        self.ping(relay)
            .inspect_err(|exceeded| relay.metrics.exceeded(exceeded.limit))
    }

    fn ping(&mut self, relay: &Relay) -> Result<(), Exceeded> {
        let live = relay.live();
        let rate = Rate {
            burst: live.config.limits.heartbeat_burst,
            period: live.config.limits.heartbeat_period,
        };
        self.heartbeats.take(rate, Instant::now())
    }

    /// Records a refusal. Returns true if the client has been refused too often.
    pub(super) fn refused(&mut self, relay: &Relay) -> bool {
        let max = relay.live().config.limits.refusals_per_minute;
        self.refusals.add(Instant::now(), max)
    }
}
