//! All deadlines of a connection, in one table with one next deadline.

use tokio::time::Instant;

/// A deadline of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeadlineKind {
    /// The token has expired.
    Token,
    /// The kernel has not accepted the whole of the outbox's first frame.
    Write,
    /// The closing handshake is not done.
    Close,
    /// A message that has begun to arrive is not complete.
    Message,
    /// The time from which on the user may be sent more presence messages.
    Presence,
    /// The time at which to check how long the client has been silent.
    Silence,
}

/// The times at which a connection's deadlines expire.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    pub(super) token: Option<Instant>,
    pub(super) write: Option<Instant>,
    pub(super) close: Option<Instant>,
    pub(super) message: Option<Instant>,
    /// In a box, since hardly any connection ever has one.
    pub(super) presence: Option<Box<Instant>>,
    /// Not extended by what the client sends: setting the alarm again at each read would cost
    /// more than an occasional needless check.
    pub(super) silence: Option<Instant>,
}

/// The deadline, if any, that has expired and takes effect after a final check of the socket: if
/// the process did not run for a while, the data that meets the deadline may be in the kernel.
#[derive(Debug, Default)]
pub(super) struct FinalCheck(Option<DeadlineKind>);

impl FinalCheck {
    /// Returns true the first time that this deadline expires: a check must then precede its
    /// effect.
    pub(super) fn begin(&mut self, late: DeadlineKind) -> bool {
        self.0.replace(late) != Some(late)
    }

    /// Records that this deadline was met, so that a check precedes its next expiry again.
    pub(super) fn clear(&mut self, met: DeadlineKind) {
        self.0.take_if(|checked| *checked == met);
    }
}

impl Deadlines {
    /// Returns the earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [
            self.token,
            self.write,
            self.close,
            self.message,
            self.presence.as_deref().copied(),
            self.silence,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Removes all deadlines except those that end the connection for good.
    pub(super) fn keep_closing_deadlines(&mut self) {
        self.token = None;
        self.message = None;
        self.presence = None;
        self.silence = None;
    }

    /// Returns a deadline that has expired at `now`; of several, the one that ends the connection
    /// soonest.
    pub(super) fn first_expired(&self, now: Instant) -> Option<DeadlineKind> {
        [
            (DeadlineKind::Close, self.close),
            (DeadlineKind::Write, self.write),
            (DeadlineKind::Token, self.token),
            (DeadlineKind::Message, self.message),
            (DeadlineKind::Presence, self.presence.as_deref().copied()),
            (DeadlineKind::Silence, self.silence),
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
    fn the_earliest_deadline_is_next_and_the_most_severe_expires_first() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let mut deadlines = Deadlines::default();
        assert_eq!(
            (deadlines.next_deadline(), deadlines.first_expired(later)),
            (None, None)
        );
        deadlines.token = Some(later);
        assert_eq!(
            (deadlines.next_deadline(), deadlines.first_expired(now)),
            (Some(later), None)
        );
        deadlines.write = Some(now);
        assert_eq!(deadlines.next_deadline(), Some(now));
        assert_eq!(deadlines.first_expired(now), Some(DeadlineKind::Write));
        deadlines.close = Some(now);
        assert_eq!(deadlines.first_expired(later), Some(DeadlineKind::Close));
        let deadlines = Deadlines {
            message: Some(later),
            silence: Some(now),
            ..Deadlines::default()
        };
        assert_eq!(deadlines.next_deadline(), Some(now));
        assert_eq!(deadlines.first_expired(now), Some(DeadlineKind::Silence));
        assert_eq!(deadlines.first_expired(later), Some(DeadlineKind::Message));
    }
}
