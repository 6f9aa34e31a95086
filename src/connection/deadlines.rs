//! All deadlines of a connection, in one table with one next deadline.

use tokio::time::Instant;

/// What is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The token has expired.
    Token,
    /// The kernel has not taken the frame at the outbox's head whole.
    Write,
    /// The closing handshake is not over.
    Close,
    /// A message that has begun to come is not whole.
    Message,
    /// It is time to look for how long the client has been silent.
    Silence,
}

/// When what is late.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    pub(super) token: Option<Instant>,
    pub(super) write: Option<Instant>,
    pub(super) close: Option<Instant>,
    pub(super) message: Option<Instant>,
    /// Not put off by what the client sends: to set the alarm anew with each read
    /// would cost more than a look in vain now and then.
    pub(super) silence: Option<Instant>,
}

impl Deadlines {
    /// The earliest.
    pub(super) fn next(&self) -> Option<Instant> {
        [
            self.token,
            self.write,
            self.close,
            self.message,
            self.silence,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Only what ends the connection for good counts from now on.
    pub(super) fn is_told_to_end(&mut self) {
        self.token = None;
        self.message = None;
        self.silence = None;
    }

    /// What is late at `now`; of several, what ends the connection soonest.
    pub(super) fn late(&self, now: Instant) -> Option<Late> {
        [
            (Late::Close, self.close),
            (Late::Write, self.write),
            (Late::Token, self.token),
            (Late::Message, self.message),
            (Late::Silence, self.silence),
        ]
        .into_iter()
        .find_map(|(late, deadline)| deadline.filter(|at| *at <= now).map(|_| late))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_earliest_deadline_is_next_and_the_gravest_is_late_first() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut deadlines = Deadlines::default();
        assert_eq!((deadlines.next(), deadlines.late(later)), (None, None));
        deadlines.token = Some(later);
        assert_eq!((deadlines.next(), deadlines.late(now)), (Some(later), None));
        deadlines.write = Some(now);
        assert_eq!(deadlines.next(), Some(now));
        assert_eq!(deadlines.late(now), Some(Late::Write));
        deadlines.close = Some(now);
        assert_eq!(deadlines.late(later), Some(Late::Close));
        let deadlines = Deadlines {
            message: Some(later),
            silence: Some(now),
            ..Deadlines::default()
        };
        assert_eq!(deadlines.next(), Some(now));
        assert_eq!(deadlines.late(now), Some(Late::Silence));
        assert_eq!(deadlines.late(later), Some(Late::Message));
    }
}
