//! Whether the client is still there: it is pinged when it is silent, and given up
//! when it stays so, or when a message of its does not come to its end.

use tokio::time::Instant;

use super::{Connection, Listener, Phase};
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
        self.is_last_look = false;
    }

    /// Sends a ping to a client that has been silent for `client.ping_interval`, and
    /// gives one up that has been for `client.idle_timeout`.
    pub(super) fn look_at_silence(&mut self) {
        let now = Instant::now();
        let live = self.account.shard.relay.live();
        let (interval, timeout) = {
            let client = &live.config.client;
            (client.ping_interval, client.idle_timeout)
        };
        drop(live);
        if !self.is_read_from() {
            // It does not take its answers, for which there is the write deadline, or we
            // let it wait.
            self.heard = now;
            self.given_up_at = None;
            self.is_last_look = false;
        }
        let next = match self.given_up_at {
            Some(end) if now >= end && self.is_last_look => return self.end(Ending::Idle),
            Some(end) if now >= end => {
                // In a turn of its own: at the end of a long one the event loop tells
                // nobody that there is something to read.
                self.is_last_look = true;
                self.turn_is_over = true;
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
        }
    }

    /// Ends a connection whose message is late, unless it is not read from.
    pub(super) fn message_is_late(&mut self) {
        if self.is_read_from() {
            self.end(Ending::Unfinished);
        } else {
            self.watch_message(true);
        }
    }
}
