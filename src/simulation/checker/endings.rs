//! How a connection may end, and what must have come before.

use super::connection::Follower;
use crate::simulation::history::{End, History, When};

impl Follower<'_> {
    pub(super) fn check_end(&mut self, history: &History) {
        let Some((when, end)) = self.connection.end else {
            panic!("{self} has no end");
        };
        match (end, self.close) {
            (End::Done, _) => self.check_all_was_heard(when),
            (End::Left, _) => {}
            (_, Some((when, code))) => self.check_close(code, when, history),
            (End::Closed, None) => panic!("{self} ends without a Close"),
            (End::Ended { .. }, None) => {
                assert!(self.connection.is_cut, "{self} ends without a Close");
            }
            (End::Reset { .. }, None) => {}
        }
    }

    /// Its client was there to the end and was told nothing: it has all.
    fn check_all_was_heard(&self, when: When) {
        assert!(
            self.replay.is_empty(),
            "{self}: {:?} of a replay lack",
            self.replay
        );
        let unanswered = self.is_answered.iter().position(|it| !it);
        assert!(unanswered.is_none(), "{self}: no answer to {unanswered:?}");
        if let Some(at) = self.at {
            self.check_nothing_lacks(at, self.log().head());
        }
        assert!(
            when.time < self.connection.token_end,
            "{self} outlives its token"
        );
    }

    fn check_close(&self, code: u16, when: When, history: &History) {
        match code {
            1001 => {
                if let Some(at) = self.at {
                    self.check_nothing_queued_lacks(at, when);
                }
                assert!(
                    self.replay.is_empty(),
                    "{self}: {:?} of a replay lack",
                    self.replay
                );
            }
            4001 => {
                history.count("4001");
                let end = self.connection.token_end;
                assert!(when.time >= end, "{self} is closed before its token ends");
            }
            4003 => {
                history.count("4003");
                self.check_is_slow(when);
            }
            other => panic!("{self} is closed with {other}"),
        }
    }

    /// So much was on its way to it that an outbox could be full, or what was to be
    /// replayed may be evicted.
    fn check_is_slow(&self, when: When) {
        let head = self.log().head_max(when.moment);
        let behind = self.at.unwrap_or_default();
        let waiting = self.log().relating(behind..head, self.topics()).count() + self.replay.len();
        let unanswered = self.is_answered.iter().filter(|it| !**it).count();
        let limits = &self.settings.config.limits;
        let bytes = waiting * 1_300 + unanswered * 300;
        let next = self.replay.first().copied().unwrap_or(behind + 1);
        assert!(
            limits.memory_max < 1 << 30
                || waiting + unanswered >= limits.outbox_frames
                || bytes >= limits.outbox_bytes
                || self.log().may_be_evicted(next, when),
            "{self} is closed as too slow with {waiting} events and {unanswered} answers to come"
        );
    }
}
