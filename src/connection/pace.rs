//! How fast one client speaks: what each of its messages is charged to, and how often
//! it was refused. Knows no frames.

use tokio::time::Instant;

use super::conversation::Kind;
use crate::{
    limits::{Charge, Exceeded, Heartbeats, Rate, Refusals, UserKey},
    planted::{Fault, is_planted},
    relay::Relay,
};

/// What is counted of one client.
#[derive(Debug, Default)]
pub(super) struct Pace {
    heartbeats: Heartbeats,
    refusals: Refusals,
    /// The first Subscribe has come, which is free.
    has_subscribed: bool,
}

impl Pace {
    /// Charges a message.
    ///
    /// # Errors
    ///
    /// When there were too many.
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

    fn ping(&mut self, relay: &Relay) -> Result<(), Exceeded> {
        let live = relay.live();
        let rate = Rate {
            burst: live.config.limits.heartbeat_burst,
            period: live.config.limits.heartbeat_period,
        };
        self.heartbeats.take(rate, Instant::now())
    }

    /// The client is refused something: whether that was once too often.
    pub(super) fn refused(&mut self, relay: &Relay) -> bool {
        let max = relay.live().config.limits.refusals_per_minute;
        self.refusals.add(Instant::now(), max)
    }
}
