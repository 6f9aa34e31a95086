//! Checks the end of a connection, and that all that must precede it has come.

use std::time::Duration;

use super::connection::ConnectionChecker;
use crate::{
    history::{History, Timestamp},
    record::{ConnectionEnd, FrameContent, RequestKind},
    topics::USERS,
};

/// Time within which data arrives that is not held up, over any link.
const ARRIVES_WITHIN: Duration = Duration::from_secs(1);

/// Time for which the network, and a shard, hold up what is sent, and for which presence lingers.
const HELD_UP_MAX: Duration = Duration::from_secs(15);

/// Maximum size of an event, in bytes.
const BYTES_MAX: usize = 1_300;

/// Maximum size of an event as JSON, in bytes.
const JSON_BYTES_MAX: usize = 8_500;

impl ConnectionChecker<'_> {
    pub(super) fn check_end(&mut self, history: &History) {
        let Some((when, end)) = self.connection.end else {
            panic!("{self} has no end");
        };
        let limit = self.settings.config.limits.refusals_per_minute.get();
        assert!(self.refusals() <= limit, "{self} is refused too often");
        match (end, self.close) {
            (ConnectionEnd::Done, _) => {
                history.count("read to the end");
                self.check_all_was_heard(when);
            }
            (ConnectionEnd::Left, _) => {}
            (_, Some((when, code, reason))) => {
                self.check_close(code, reason, when, history);
                if reason.contains("replay window") {
                    history.count("eviction during a replay");
                }
            }
            (ConnectionEnd::Closed, None) => panic!("{self} ends without a Close"),
            (ConnectionEnd::Ended { .. }, None) => {
                assert!(self.connection.is_cut, "{self} ends without a Close");
            }
            (ConnectionEnd::Reset { .. }, None) => {}
        }
    }

    /// Checks that a client that stayed to the end has received everything.
    fn check_all_was_heard(&self, when: Timestamp) {
        self.check_replay_is_over();
        let mut asked = self.connection.sent.iter().zip(&self.is_answered);
        let unanswered =
            asked.find(|(it, is_answered)| !**is_answered && !it.what.is_client_event());
        assert!(
            unanswered.is_none(),
            "{self}, opened {:?}: no answer by {when:?} to {unanswered:?}",
            self.connection.opened
        );
        if let Some(at) = self.at {
            self.check_nothing_lacks(at, self.log().head());
        }
        assert!(
            when.time < self.rights.token_end,
            "{self} outlives its token"
        );
        self.check_may_stay();
    }

    fn check_close(&mut self, code: u16, reason: &str, when: Timestamp, history: &History) {
        match code {
            1001 => {
                if let Some(at) = self.at {
                    self.check_nothing_queued_lacks(at, when);
                }
                self.check_replay_is_over();
            }
            4001 => {
                history.count("4001");
                let end = self.token_end_min();
                assert!(when.time >= end, "{self} is closed before its token ends");
            }
            4002 => {
                history.count("4002");
                self.check_is_disconnected(false, when);
            }
            4006 if reason.contains("replay") => {
                history.count("4006 for a replay that lost a topic");
                self.check_replay_is_cut(when);
            }
            4006 => {
                history.count("4006 for a new token");
                self.check_is_disconnected(true, when);
            }
            4003 => {
                history.count("4003");
                if self.connection.speaks_json {
                    history.count("4003 of a client that speaks JSON");
                }
                if reason.contains("presence") {
                    history.count("4003 for presence");
                }
                self.check_is_slow(reason, when);
            }
            4005 => {
                history.count("4005");
                let limit = self.settings.config.limits.refusals_per_minute.get();
                assert_eq!(self.refusals(), limit, "{self} is closed for refusals");
            }
            4004 => {
                history.count("4004");
                self.check_is_silent(reason, when);
            }
            other => panic!("{self} is closed with {other}"),
        }
    }

    /// Checks that the client had sent nothing for the idle timeout. Skipped if the network has
    /// held up data, which may then arrive late or cut off in the middle of a message.
    fn check_is_silent(&self, reason: &str, when: Timestamp) {
        if self.connection.is_held {
            return;
        }
        assert!(
            !reason.contains("message"),
            "{self}: its messages are whole"
        );
        let silence = self.connection.longest_silence(when.time);
        let timeout = self.settings.config.client.idle_timeout;
        assert!(
            silence + ARRIVES_WITHIN >= timeout,
            "{self} is given up after {silence:?} of silence"
        );
    }

    fn may_be_owed_too_much(&self, reason: &str) -> bool {
        reason.contains("presence") && self.settings.config.presence.owed < USERS
    }

    /// Returns the most messages of other clients that may have waited for it: those of the time
    /// since it last received something, each of which changes what it sees at most once, and what
    /// it saw of each user when it subscribed or unsubscribed.
    fn relayed_max(&self, when: Timestamp) -> usize {
        let last = self.connection.heard.iter().rev().nth(1);
        let since = last.map_or(self.connection.asked.time, |heard| heard.when.time);
        let since = since.saturating_sub(HELD_UP_MAX);
        let is_since = |it: &Timestamp| it.time >= since && it.moment < when.moment;
        let others = self.connections.iter();
        let others = others.filter(|it| it.tenant == self.connection.tenant);
        let mut most = 0;
        for other in others {
            let sent = other.sent.iter().filter(|it| is_since(&it.sent));
            most += sent.filter(|it| it.what.changes_views()).count();
            // When it has ended and lingered, its messages are shown no longer.
            most += usize::from(other.end.is_none_or(|(end, _)| end.time >= since));
            most += self.rights.calls_for(other, since, when).count();
        }
        let own = self.connection.sent.iter();
        let own = own.filter(|it| is_since(&it.sent));
        let begun: usize = own.map(|it| it.what.topic_count()).sum();
        most + USERS * (begun + self.topics_lost_max(since, when))
    }

    /// Returns the number of its refused messages. A simulation is shorter than a minute.
    pub(super) fn refusals(&self) -> u32 {
        // The one without a request says that the token has expired, and INTERNAL_ERROR is not the
        // client's fault.
        let is_refusal = |said: &FrameContent| matches!(said, FrameContent::Refused { request, code, .. } if !request.is_empty() && code != "INTERNAL_ERROR");
        let heard = self.connection.heard.iter();
        heard.map(|it| u32::from(is_refusal(&it.what))).sum()
    }

    /// Checks that so much was queued for it that an outbox could be full, or that the next event
    /// from the log may have been evicted. The last confirmation may not have been received.
    fn check_is_slow(&self, reason: &str, when: Timestamp) {
        let unanswered = self.connection.sent.iter().zip(&self.is_answered);
        let unanswered: Vec<_> = unanswered
            .filter(|(it, is_answered)| !**is_answered && !it.what.is_client_event())
            .map(|(it, _)| it)
            .collect();
        let (mut topics, mut behind) = (self.topics(), self.at.unwrap_or(u64::MAX));
        for request in &unanswered {
            if let RequestKind::Subscribe(asked) = &request.what
                && asked.may_be_asked_for()
            {
                topics |= asked.all();
                let from = asked.position.as_ref().map(|from| from.offset);
                behind = behind.min(from.unwrap_or(behind));
            }
        }
        if behind == u64::MAX {
            behind = 0;
        }
        let log = self.log();
        let head = log.head_max(when.moment);
        let waiting = log.offsets_relating(behind..head, topics).count() + self.replay.len();
        let waiting = waiting + self.relayed_max(when);
        let ended = self
            .rights
            .calls_for(self.connection, Duration::ZERO, when)
            .count();
        let answers = unanswered.len() + ended;
        let limits = &self.settings.config.limits;
        let event_bytes_max = if self.connection.speaks_json {
            JSON_BYTES_MAX
        } else {
            BYTES_MAX
        };
        // The cursor passes over every event of the log, also those that do not match.
        let next = match self.replay.first() {
            Some(_) => self.replay_after + 1,
            None => behind + 1,
        };
        assert!(
            limits.memory_max < 1 << 30
                || self.may_be_owed_too_much(reason)
                || waiting + answers >= limits.outbox_frames
                || waiting * event_bytes_max + answers * 300 >= limits.outbox_bytes
                || log.may_be_evicted(next, when),
            "{self} is closed ({reason}) with {waiting} events and {answers} answers to come"
        );
    }
}
