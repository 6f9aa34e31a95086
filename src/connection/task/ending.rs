//! Ends a connection: decides what the client is sent, what is still written, and for how long.

use std::time::Duration;

use hyper::StatusCode;
use sidewire_protocol::{
    ErrorCode,
    close::CloseReason,
    reply::{MessageRefusal, Reply},
};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{
    Error,
    error::ProtocolError,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{ConnectionPhase, ConnectionTask, poll::ConnectionStep};
use crate::{
    connection::{admission::NO_MEMORY, http_stream::refusal_frame, stream::Transport},
    http::HttpProblem,
    telemetry::CloseLabel,
    transport::TransportKind,
};

impl<S: Transport> ConnectionTask<S> {
    /// Begins to close the connection for this reason.
    pub(super) fn begin_close(&mut self, ending: CloseReason) {
        if !self.is_open() {
            return;
        }
        // An outbox that has overflowed lacks an event, so what is queued behind must not be
        // written.
        let first = self.account.outbox().signals().ending();
        let ending = first.filter(|it| !it.drains_outbox()).unwrap_or(ending);
        self.account.closed = CloseLabel::ByRelay(ending);
        self.phase = ConnectionPhase::Closing;
        if !ending.drains_outbox() {
            self.account
                .record_dropped(self.account.outbox().discard_queued());
        }
        self.queue_cause(ending);
        let is_within_message = self.stream.is_within_message();
        self.stream.queue_close(CloseFrame {
            code: CloseCode::from(ending.code()),
            reason: ending.close_frame_text().into(),
        });
        if is_within_message && ending == CloseReason::NoMemory {
            self.drop_partial_message();
        }
        if matches!(ending, CloseReason::Drain { .. }) {
            // The client has until the end of the drain, which is not decided here: a deadline of
            // its own would race with that.
            self.deadlines.keep_closing_deadlines();
        } else {
            self.set_close_deadline();
        }
    }

    /// Queues what tells the client, ahead of the Close frame, why the connection ends.
    fn queue_cause(&mut self, ending: CloseReason) {
        if self.account.transport() == TransportKind::Poll {
            // The answer, unless that has begun with what is queued before. A refused request has one.
            if ending != CloseReason::Refused {
                let problem = self.poll_problem(ending);
                self.account.outbox().push_reply(refusal_frame(problem));
            }
            return;
        }
        let not_authentic = match ending {
            CloseReason::TokenExpired => "the token has expired",
            CloseReason::KeyRemoved => "the key that signed the token was removed",
            _ => return,
        };
        self.queue_reply(&Reply::Error(MessageRefusal::new(
            ErrorCode::AuthenticationFailed,
            not_authentic,
        )));
    }

    /// Returns the answer to a poll that ends for this reason.
    fn poll_problem(&self, ending: CloseReason) -> HttpProblem {
        let retry_after = self.account.relay().retry_after();
        match ending {
            CloseReason::TokenExpired
            | CloseReason::KeyRemoved
            | CloseReason::NewTokenRequested => {
                HttpProblem::unauthenticated("a new token is required")
            }
            CloseReason::Disconnected | CloseReason::RightsReduced => HttpProblem::new(
                StatusCode::FORBIDDEN,
                ErrorCode::AuthorizationFailed,
                "a backend has disconnected this user, or revoked a topic of this poll",
            ),
            CloseReason::Drain { retry_after_ms } => {
                HttpProblem::shutting_down(Duration::from_millis(retry_after_ms.into()))
            }
            CloseReason::NoMemory => {
                HttpProblem::unavailable(ErrorCode::RateLimitExceeded, NO_MEMORY, retry_after)
            }
            _ => {
                let detail = "the answer could not be completed; repeat the poll";
                HttpProblem::unavailable(ErrorCode::InternalError, detail, retry_after)
            }
        }
    }

    /// Drops the message that the client has begun to send. The rest of it, and everything after
    /// it, can only be discarded.
    pub(super) fn drop_partial_message(&mut self) {
        self.stream.drop_partial_message();
        self.phase = ConnectionPhase::Lingering { shut_down: false };
    }

    /// Handles a Close frame from the client, which tungstenite answers at the next read.
    pub(super) fn on_client_close(&mut self) {
        if self.is_open() {
            self.account.closed = CloseLabel::ByClient;
            self.phase = ConnectionPhase::Closing;
            self.account
                .record_dropped(self.account.outbox().discard_queued());
            self.set_close_deadline();
        }
    }

    /// Handles an error of tungstenite, after which it reads no further.
    pub(super) fn on_stream_error(&mut self, error: &Error) {
        let (closed, code) = match error {
            Error::ConnectionClosed | Error::AlreadyClosed => {
                self.phase = ConnectionPhase::Closed;
                return;
            }
            Error::Capacity(_) => (CloseLabel::TooBig, CloseCode::Size),
            Error::Utf8(_) => (CloseLabel::BadUtf8, CloseCode::Invalid),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_) => {
                self.abandon_outbox();
                return;
            }
            _ => (CloseLabel::ProtocolError, CloseCode::Protocol),
        };
        let was_open = self.is_open();
        self.phase = ConnectionPhase::Lingering { shut_down: false };
        if was_open {
            self.account.closed = closed;
            self.account
                .record_dropped(self.account.outbox().discard_queued());
            self.stream.queue_close(CloseFrame {
                code,
                // The text of tungstenite is about the wire and reveals nothing of the relay.
                reason: close_reason_text(error).into(),
            });
        }
        self.set_close_deadline();
    }

    /// Handles the loss of a client that sent no Close frame: what is queued for it is dropped.
    pub(super) fn abandon_outbox(&mut self) {
        self.phase = ConnectionPhase::Closed;
        self.account
            .record_dropped(self.account.outbox().discard_all());
        self.set_close_deadline();
    }

    pub(super) fn on_connection_lost(&mut self) -> ConnectionStep {
        if self.is_open() && self.stream.is_complete() {
            self.account.closed = CloseLabel::Answered;
        }
        self.abandon_outbox();
        ConnectionStep::Finished
    }

    pub(super) fn record_reset(&mut self) {
        if self.stream.has_unwritten() && self.is_open() {
            self.account.closed = CloseLabel::Reset;
        }
    }

    /// Returns the time within which the kernel must accept a frame, or the client must close.
    pub(super) fn write_timeout(&self) -> Duration {
        self.account.relay().live().config.client.write_timeout
    }

    fn set_close_deadline(&mut self) {
        let timeout = self.write_timeout();
        self.deadlines.keep_closing_deadlines();
        self.deadlines
            .close
            .get_or_insert_with(|| Instant::now() + timeout);
    }
}

impl<S: Transport> Drop for ConnectionTask<S> {
    /// Resets the stream if something is unwritten, whatever ended the task: the client must not
    /// mistake this for a clean end.
    fn drop(&mut self) {
        self.end_waiting_for_client();
        if self.stream.has_unwritten() {
            self.stream.reset();
            self.account.record_dropped(self.stream.abandon_unflushed());
        }
    }
}

/// Returns the error's text, cut to the 123 bytes that the reason of a Close frame may have (RFC
/// 6455, 5.5).
fn close_reason_text(error: &Error) -> String {
    let mut reason = error.to_string();
    reason.truncate(reason.floor_char_boundary(123));
    reason
}
