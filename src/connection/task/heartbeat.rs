//! Detects dead clients: a silent client is pinged, and disconnected if it stays silent or does
//! not complete a message.

use sidewire_protocol::{close::CloseReason, frame};
use tokio::time::Instant;

use super::{ConnectionPhase, ConnectionTask, DeadlineKind, open::OpenConnection};
use crate::{
    connection::stream::Transport, outbox::Outbox, planted::fault, transport::TransportKind,
};

impl<S: Transport> ConnectionTask<S> {
    /// Records that the client has sent something.
    pub(super) fn on_read(&mut self) {
        if fault!(GivesUpTheLiving) {
            return;
        }
        if let ConnectionPhase::Open(open) = &mut self.phase {
            open.last_read_at = Instant::now();
            open.given_up_at = None;
        }
        self.final_check.clear(DeadlineKind::Silence);
    }

    /// Pings a client that has been silent for `client.ping_interval`, and disconnects one that
    /// has been silent for `client.idle_timeout`.
    ///
    /// Also checks the token against the time of day, which advances while the machine is
    /// suspended and jumps when its clock is set; the deadline does neither.
    pub(super) fn check_idle(&mut self) {
        if self.account.transport() == TransportKind::Poll {
            return self.end_wait();
        }
        let now = Instant::now();
        let is_kept_waiting = !self.is_waiting_for_client();
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        let time_of_day = self.account.relay().clock.since_unix_epoch();
        if open.expires_at.is_some_and(|end| time_of_day >= end) {
            return self.begin_close(CloseReason::TokenExpired);
        }
        let live = self.account.relay().live();
        let client = &live.config.client;
        let (interval, timeout) = (client.ping_interval, client.idle_timeout);
        if is_kept_waiting {
            // Either the client does not read its answers, which the write deadline covers, or
            // the relay keeps the client waiting.
            open.last_read_at = now;
            open.given_up_at = None;
            self.final_check.clear(DeadlineKind::Silence);
        }
        let next = match open.given_up_at {
            Some(end) if now >= end => {
                if !self.begin_final_check(DeadlineKind::Silence) {
                    return self.begin_close(CloseReason::Idle);
                }
                now
            }
            None if now < open.last_read_at + interval => open.last_read_at + interval,
            again_or_not => {
                let ping = match self.account.transport() {
                    TransportKind::WebSocket => Box::new(frame::EMPTY_PING) as Box<[u8]>,
                    TransportKind::Sse | TransportKind::Poll => {
                        ping_with_position(open, self.account.outbox())
                    }
                };
                self.account.outbox().set_ping(ping);
                // Every client has time to answer, even if a reload has made the times shorter
                // than its silence so far.
                let end = again_or_not
                    .unwrap_or((open.last_read_at + timeout).max(now + (timeout - interval)));
                open.given_up_at = Some(end);
                end.min(now + interval)
            }
        };
        self.deadlines.silence = Some(next);
    }

    /// Tells a poll that it has waited for long enough, and up to where it has everything.
    fn end_wait(&mut self) {
        self.deadlines.silence = None;
        if let ConnectionPhase::Open(open) = &self.phase {
            let ping = ping_with_position(open, self.account.outbox());
            self.account.outbox().set_ping(ping);
        }
    }

    /// Applies a shorter ping interval after a reload. (A message in progress keeps its
    /// deadline.)
    pub(super) fn tighten_idle_deadline(&mut self) {
        if let ConnectionPhase::Open(open) = &self.phase
            && self.account.transport() != TransportKind::Poll
            && let Some(silence) = &mut self.deadlines.silence
        {
            let interval = self.account.relay().live().config.client.ping_interval;
            let due = (open.last_read_at + interval).max(Instant::now());
            *silence = due.min(*silence);
        }
    }

    /// Sets or clears the deadline of the message in progress. `is_another` says that a message
    /// was completed meanwhile, so that this is a newer one.
    pub(super) fn update_message_deadline(&mut self, is_another: bool) {
        if !self.is_open() || !self.stream.is_within_message() {
            self.deadlines.message = None;
            self.final_check.clear(DeadlineKind::Message);
        } else if is_another || self.deadlines.message.is_none() {
            let timeout = self.account.relay().live().config.client.message_timeout;
            self.deadlines.message = Some(Instant::now() + timeout);
            self.final_check.clear(DeadlineKind::Message);
        }
    }

    /// Closes the connection because a message is late, unless the relay does not read from it or
    /// the rest of the message may have arrived.
    pub(super) fn on_message_deadline(&mut self) {
        if !self.is_waiting_for_client() {
            self.update_message_deadline(true);
        } else if !self.begin_final_check(DeadlineKind::Message) {
            self.begin_close(CloseReason::Unfinished);
        }
    }
}

/// Returns a ping that tells a client up to where it has everything. It is written ahead of what is
/// queued, so it has no position if something is.
fn ping_with_position(open: &OpenConnection, outbox: &Outbox) -> Box<[u8]> {
    let is_all_written = outbox.is_empty() || fault!(PingsTheHead);
    let position = open.position().filter(|_| is_all_written);
    let position = position.map(|position| position.to_string());
    frame::relay_frame(frame::PING, position.unwrap_or_default().as_bytes())
}
