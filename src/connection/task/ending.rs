//! Ends a connection: decides what the client is sent, what is still written, and for how long.

use std::time::Duration;

use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{
    Error,
    error::ProtocolError,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{Connection, Listener, Phase, Step};
use crate::{
    connection::{behind::WaitingRequests, stream::Transport},
    ops::Closed,
    protocol::{
        ErrorCode,
        close::Ending,
        reply::{Refusal, Reply},
    },
};

impl<S: Transport, L: Listener> Connection<S, L> {
    /// Begins to close the connection for this reason.
    pub(super) fn end(&mut self, ending: Ending) {
        if self.phase != Phase::Open {
            return;
        }
        self.account.closed = Closed::by_relay(ending);
        self.leave();
        if !ending.writes_what_is_queued() {
            self.account.discarded(self.account.outbox.discard());
        }
        let not_authentic = match ending {
            Ending::TokenExpired => Some("the token has expired"),
            Ending::KeyRemoved => Some("the key that signed the token was removed"),
            _ => None,
        };
        if let Some(why) = not_authentic {
            self.say(&Reply::Error(Refusal::new(
                ErrorCode::AuthenticationFailed,
                why,
            )));
        }
        let is_within_message = self.stream.is_within_message();
        self.stream.close(CloseFrame {
            code: CloseCode::from(ending.code()),
            reason: ending.reason().into(),
        });
        self.phase = Phase::Closing;
        if is_within_message && ending == Ending::NoMemory {
            self.drop_begun_message();
        }
        if matches!(ending, Ending::Drain { .. }) {
            // The client has until the end of the drain, which is not decided here: a deadline of
            // its own would race with that.
            self.deadlines.is_told_to_end();
        } else {
            self.give_it_until(self.account.shard.relay.live().config.client.write_timeout);
        }
    }

    /// Drops the message that the client has begun to send. The rest of it, and everything after
    /// it, can only be discarded.
    pub(super) fn drop_begun_message(&mut self) {
        self.stream.drop_begun_message();
        self.phase = Phase::Lingering { shut_down: false };
    }

    /// Handles a Close frame from the client, which tungstenite answers at the next read.
    pub(super) fn closed_by_client(&mut self) {
        if self.phase == Phase::Open {
            self.account.closed = Closed::ByClient;
            self.leave();
            self.account.discarded(self.account.outbox.discard());
            self.phase = Phase::Closing;
            self.give_it_until(self.account.shard.relay.live().config.client.write_timeout);
        }
    }

    /// Handles an error of tungstenite, after which it reads no further.
    pub(super) fn broken(&mut self, error: &Error) {
        let (closed, code) = match error {
            Error::ConnectionClosed | Error::AlreadyClosed => {
                self.phase = Phase::Closed;
                return;
            }
            Error::Capacity(_) => (Closed::TooBig, CloseCode::Size),
            Error::Utf8(_) => (Closed::BadUtf8, CloseCode::Invalid),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => {
                self.outbox_is_lost();
                return;
            }
            _ => (Closed::ProtocolError, CloseCode::Protocol),
        };
        if self.phase == Phase::Open {
            self.account.closed = closed;
            self.leave();
            self.account.discarded(self.account.outbox.discard());
            self.stream.close(CloseFrame {
                code,
                // The text of tungstenite is about the wire and reveals nothing of the relay.
                reason: reason_of(error).into(),
            });
        }
        self.phase = Phase::Lingering { shut_down: false };
        self.give_it_until(self.account.shard.relay.live().config.client.write_timeout);
    }

    /// Handles the loss of a client that sent no Close frame: what is queued for it is dropped.
    pub(super) fn outbox_is_lost(&mut self) {
        self.leave();
        self.account.discarded(self.account.outbox.abandon());
        self.phase = Phase::Closed;
        self.give_it_until(self.account.shard.relay.live().config.client.write_timeout);
    }

    /// Leaves the hub and drops the client's pending requests: nothing more is queued for it.
    pub(super) fn leave(&mut self) {
        self.membership = None;
        self.subscribing = None;
        self.waiting = WaitingRequests::default();
        self.reading_json = None;
        self.place = None;
        self.write_place = None;
    }

    pub(super) fn lost(&mut self) -> Step {
        self.outbox_is_lost();
        Step::Over
    }

    pub(super) fn cut_off(&mut self) {
        if self.stream.has_unwritten() && self.phase == Phase::Open {
            self.account.closed = Closed::Reset;
        }
    }

    pub(super) fn give_it_until(&mut self, timeout: Duration) {
        self.deadlines.is_told_to_end();
        self.deadlines
            .close
            .get_or_insert_with(|| Instant::now() + timeout);
    }
}

impl<S: Transport, L> Drop for Connection<S, L> {
    /// Resets the stream if something is unwritten, whatever ended the task: the client must not
    /// mistake this for a clean end.
    fn drop(&mut self) {
        if self.stream.has_unwritten() {
            self.stream.reset();
            self.account.discarded(self.stream.abandon());
        }
    }
}

/// Returns the error's text, cut to the 123 bytes that the reason of a Close frame may have (RFC
/// 6455, 5.5).
fn reason_of(error: &Error) -> String {
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(123));
    reason
}
