//! Checks the end of a connection, and that all that must precede it has come.

use std::time::Duration;

use super::connection::ConnectionChecker;
use crate::history::{ConnectionEnd, FrameContent, History, RequestKind, Timestamp};

/// Time within which data arrives that is not held up, over any link.
const ARRIVES_WITHIN: Duration = Duration::from_secs(1);

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
        let unanswered = asked.find(|(_, is_answered)| !**is_answered);
        assert!(
            unanswered.is_none(),
            "{self}, opened {:?}: no answer by {when:?} to {unanswered:?}",
            self.connection.opened
        );
        if let Some(at) = self.at {
            self.check_nothing_lacks(at, self.log().head());
        }
        assert!(
            when.time < self.connection.token_end,
            "{self} outlives its token"
        );
    }

    fn check_close(&self, code: u16, reason: &str, when: Timestamp, history: &History) {
        match code {
            1001 => {
                if let Some(at) = self.at {
                    self.check_nothing_queued_lacks(at, when);
                }
                self.check_replay_is_over();
            }
            4001 => {
                history.count("4001");
                let end = self.connection.token_end;
                assert!(when.time >= end, "{self} is closed before its token ends");
            }
            4003 => {
                history.count("4003");
                if self.connection.speaks_json {
                    history.count("4003 of a client that speaks JSON");
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

    /// Returns the number of its refused messages. A simulation is shorter than a minute.
    pub(super) fn refusals(&self) -> u32 {
        let is_refusal = |said: &FrameContent| matches!(said, FrameContent::Refused { code, .. } if code != "AUTHENTICATION_FAILED");
        let heard = self.connection.heard.iter();
        heard.map(|it| u32::from(is_refusal(&it.what))).sum()
    }

    /// Checks that so much was queued for it that an outbox could be full, or that the next event
    /// from the log may have been evicted. The last confirmation may not have been received.
    fn check_is_slow(&self, reason: &str, when: Timestamp) {
        let unanswered = self.connection.sent.iter().zip(&self.is_answered);
        let unanswered: Vec<_> = unanswered
            .filter(|(_, it)| !**it)
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
                || waiting + unanswered.len() >= limits.outbox_frames
                || waiting * event_bytes_max + unanswered.len() * 300 >= limits.outbox_bytes
                || log.may_be_evicted(next, when),
            "{self} is closed ({reason}) with {waiting} events and {} answers to come",
            unanswered.len()
        );
    }
}
