//! Whether the client is still there: it is pinged when it is silent, and given up
//! when it stays so, or when a message of its does not come to its end.

use tokio::time::Instant;

use super::{Connection, Late, Listener, Phase};
use crate::{
    connection::stream::Transport,
    planted::{Fault, is_planted},
    protocol::{close::Ending, frame},
};

impl<S: Transport, L: Listener> Connection<S, L> {
    /// Something has come from the client.
    pub(super) fn hears(&mut self) {
        if is_planted(Fault::GivesUpTheLiving) {
            return;
        }
        self.heard = Instant::now();
        self.given_up_at = None;
        self.has_made_good(Late::Silence);
    }

    /// Sends a ping to a client that has been silent for `client.ping_interval`, and
    /// gives one up that has been for `client.idle_timeout`.
    ///
    /// It is also when the token is held against the time of day: that moves on where the
    /// machine is suspended, and jumps where its clock is set, and the deadline does neither.
    pub(super) fn look_at_silence(&mut self) {
        let now = Instant::now();
        let time_of_day = self.account.shard.relay.clock.since_unix_epoch();
        if self.expires_at.is_some_and(|end| time_of_day >= end) {
            return self.end(Ending::TokenExpired);
        }
        let live = self.account.shard.relay.live();
        let (interval, timeout) = {
            let client = &live.config.client;
            (client.ping_interval, client.idle_timeout)
        };
        drop(live);
        if !self.is_waited_for() {
            // It does not take its answers, for which there is the write deadline, or we
            // let it wait.
            self.heard = now;
            self.given_up_at = None;
            self.has_made_good(Late::Silence);
        }
        let next = match self.given_up_at {
            Some(end) if now >= end => {
                if !self.looks_once_more(Late::Silence) {
                    return self.end(Ending::Idle);
                }
                now
            }
            None if now < self.heard + interval => self.heard + interval,
            again_or_not => {
                self.account.outbox.set_ping(Box::new(frame::EMPTY_PING));
                // Nobody is given up who had no time to answer, also where a reload has
                // made the times shorter than the silence was already.
                let end =
                    again_or_not.unwrap_or((self.heard + timeout).max(now + (timeout - interval)));
                self.given_up_at = Some(end);
                end.min(now + interval)
            }
        };
        self.deadlines.silence = Some(next);
    }

    /// What is configured may have changed: a shorter interval holds from now on. (A
    /// message that has begun keeps its time.)
    pub(super) fn hasten_silence(&mut self) {
        if self.deadlines.silence.is_some() {
            let interval = self.account.shard.relay.live().config.client.ping_interval;
            let due = (self.heard + interval).max(Instant::now());
            self.deadlines.silence = self.deadlines.silence.map(|at| at.min(due));
        }
    }

    /// Sees to it that a message that has begun to come is whole in time. `is_another`:
    /// one has been taken meanwhile, so this is a newer one.
    pub(super) fn watch_message(&mut self, is_another: bool) {
        if self.phase != Phase::Open || !self.stream.is_within_message() {
            self.deadlines.message = None;
            self.has_made_good(Late::Message);
        } else if is_another || self.deadlines.message.is_none() {
            let timeout = self
                .account
                .shard
                .relay
                .live()
                .config
                .client
                .message_timeout;
            self.deadlines.message = Some(Instant::now() + timeout);
            self.has_made_good(Late::Message);
        }
    }

    /// Ends a connection whose message is late, unless it is not read from, or the rest
    /// may have come.
    pub(super) fn message_is_late(&mut self) {
        if !self.is_waited_for() {
            self.watch_message(true);
        } else if !self.looks_once_more(Late::Message) {
            self.end(Ending::Unfinished);
        }
    }
}
