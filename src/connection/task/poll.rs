//! Decides what a connection does next.

use std::task::{Context, Poll};

use sidewire_protocol::close::CloseReason;
use tokio::time::Instant;

use super::{
    ConnectionPhase, ConnectionTask, DeadlineKind, offloaded::ReadMessage,
    token_renewal::VerifiedToken,
};
use crate::{alarms::Alarm, connection::stream::Transport, outbox::WriteProgress, scheduler::Cost};

/// Maximum number of queued bytes that are written without waiting for the tenant's quantum. Up
/// to this size the system call costs more than the copy.
const WRITTEN_AT_ONCE_MAX: usize = 16 * 1024;

/// The next thing for a connection to do.
pub(super) enum ConnectionStep {
    Read,
    /// Parse bytes that are read already.
    Parse,
    Wrote(WriteProgress),
    Subscribe,
    /// Send presence messages that are owed.
    Presence,
    Waited,
    /// Carry out a revocation that a backend has requested.
    Revocation,
    MessageRead(ReadMessage),
    /// Answer an Authenticate.
    TokenVerified(Box<VerifiedToken>),
    Ending(CloseReason),
    Expired(DeadlineKind),
    Finished,
}

impl<S: Transport> ConnectionTask<S> {
    /// Waits for the next thing to do. Endings and deadlines come first, so that
    /// a client that never stops sending cannot put them off; then writing, since
    /// a connection stops reading when its outbox fills up.
    pub(super) fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        self.account.outbox().signals().register_waker(context);
        if let ConnectionPhase::Open(open) = &self.phase
            && let Some(ending) = self.account.outbox().signals().ending()
            && !open.must_finish_before(ending)
        {
            return Poll::Ready(ConnectionStep::Ending(ending));
        }
        if let Some(late) = self.check_deadlines() {
            // Input that has arrived, and room that the client has made, take precedence over the
            // deadline.
            let looked = match late {
                DeadlineKind::Silence | DeadlineKind::Message => self.poll_read(context),
                DeadlineKind::Write => self.poll_write(context),
                DeadlineKind::Token | DeadlineKind::Close | DeadlineKind::Presence => Poll::Pending,
            };
            return match looked {
                Poll::Ready(step) => Poll::Ready(step),
                Poll::Pending => Poll::Ready(ConnectionStep::Expired(late)),
            };
        }
        if self.may_write()
            && let Poll::Ready(step) = self.poll_write(context)
        {
            return Poll::Ready(step);
        }
        if let Poll::Ready(step) = self.poll_requests(context) {
            return Poll::Ready(step);
        }
        // Writing may have set a deadline that no alarm is set for yet.
        self.check_deadlines().map_or(Poll::Pending, |late| {
            Poll::Ready(ConnectionStep::Expired(late))
        })
    }

    /// Waits until one of the client's requests can be carried out. They are carried out in the
    /// order in which they came.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        if let ConnectionPhase::Open(open) = &mut self.phase {
            if let Poll::Ready(verified) = open.poll_renewal(context) {
                return Poll::Ready(ConnectionStep::TokenVerified(Box::new(verified)));
            }
            if self.account.outbox().has_revocation() {
                // The connection's own tickets may stand before this one, and would not be used
                // until it is served.
                open.hub.postpone_own_work();
                return match open.may_work() {
                    true => Poll::Ready(ConnectionStep::Revocation),
                    false => Poll::Pending,
                };
            }
            if open.hub.has_reached_head() {
                return Poll::Ready(ConnectionStep::Subscribe);
            }
            open.poll_question(context);
            if open.has_ready_request() {
                // As above.
                open.hub.postpone_own_work();
                return match open.may_work() {
                    true => Poll::Ready(ConnectionStep::Waited),
                    false => Poll::Pending,
                };
            }
            if let Poll::Ready(read) = open.poll_offloaded(context) {
                return Poll::Ready(ConnectionStep::MessageRead(read));
            }
        }
        if let Poll::Ready(step) = self.poll_read(context) {
            return Poll::Ready(step);
        }
        if let ConnectionPhase::Open(open) = &mut self.phase
            && open.hub.may_catch_up(context)
        {
            return Poll::Ready(ConnectionStep::Subscribe);
        }
        if self.account.outbox().owes_presence()
            && let ConnectionPhase::Open(open) = &self.phase
            && open
                .hub
                .may_send_presence(self.deadlines.presence.is_some())
        {
            return Poll::Ready(ConnectionStep::Presence);
        }
        Poll::Pending
    }

    /// Returns an expired deadline, if there is one. Otherwise sets an alarm for the earliest.
    fn check_deadlines(&mut self) -> Option<DeadlineKind> {
        if self.account.outbox().signals().take_alarm() {
            self.alarm = None;
            self.refresh_settings();
        }
        let next = self.deadlines.next_deadline();
        if self.alarm.as_ref().map(Alarm::deadline) != next {
            // The old alarm is dropped first, so that it does not ring.
            self.alarm = None;
            if let Some(late) = self.deadlines.first_expired(Instant::now()) {
                return Some(late);
            }
            self.alarm = next.map(|next| {
                self.account
                    .shard
                    .alarms
                    .set_alarm(next, self.account.outbox())
            });
        }
        None
    }

    /// Applies settings of which the connection has a copy, in case a reload has changed them: the
    /// hub then rings the alarms of all connections.
    fn refresh_settings(&mut self) {
        self.refresh_message_max();
        self.tighten_idle_deadline();
        if self.is_key_removed() {
            self.account
                .outbox()
                .signals()
                .request_end(CloseReason::KeyRemoved);
        }
    }

    pub(super) fn refresh_message_max(&mut self) {
        let message_max = self.account.relay().live().config.client.message_max;
        self.stream.set_message_bytes_max(message_max);
    }

    /// Returns true if a reload has removed the key that verified the token, and such connections
    /// are to be closed.
    fn is_key_removed(&self) -> bool {
        let ConnectionPhase::Open(open) = &self.phase else {
            return false;
        };
        let live = self.account.relay().live();
        live.config.auth.close_on_key_removal
            && open.key.is_some_and(|key| !live.authenticator.has_key(key))
    }

    /// Returns true if what is queued may be written now. A large write takes long to copy, so it
    /// waits for the tenant's quantum: if many clients make room at the same time, the kernel
    /// reports all of them at once.
    fn may_write(&mut self) -> bool {
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return true;
        };
        // The answer to the only Subscribe decides how the response begins.
        if open.unanswered.is_some() && self.account.transport().is_response() {
            return false;
        }
        if self.account.outbox().unwritten_bytes() > WRITTEN_AT_ONCE_MAX {
            return open.hub.may_write(&mut open.write_ticket);
        }
        open.write_ticket = None;
        true
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        if self.stream.has_unwritten() {
            let before = self.account.outbox().unwritten_bytes();
            let polled = self.stream.poll_write(context);
            if before > WRITTEN_AT_ONCE_MAX
                && let ConnectionPhase::Open(open) = &mut self.phase
            {
                let written = before - self.account.outbox().unwritten_bytes();
                open.hub.charge_write(Cost::BYTE.times(written));
                // Gives up the slot: others need not wait for a client that does not read.
                open.write_ticket = None;
            }
            return match polled {
                Poll::Ready(Ok(advanced)) => Poll::Ready(ConnectionStep::Wrote(advanced)),
                Poll::Ready(Err(_)) => Poll::Ready(self.on_connection_lost()),
                Poll::Pending => {
                    self.begin_waiting_for_client();
                    Poll::Pending
                }
            };
        }
        match &mut self.phase {
            ConnectionPhase::Open(_)
            | ConnectionPhase::Closing
            | ConnectionPhase::Lingering { shut_down: true } => Poll::Pending,
            ConnectionPhase::Closed => self
                .stream
                .poll_shutdown(context)
                .map(|_| ConnectionStep::Finished),
            ConnectionPhase::Lingering { shut_down } => match self.stream.poll_shutdown(context) {
                Poll::Ready(Ok(())) => {
                    *shut_down = true;
                    Poll::Pending
                }
                Poll::Ready(Err(_)) => Poll::Ready(ConnectionStep::Finished),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    /// Returns true if more is read from the client. Nothing is read while its outbox is half
    /// full.
    pub(super) fn accepts_input(&self) -> bool {
        let is_stopped = matches!(&self.phase, ConnectionPhase::Open(open) if open.stops_reading());
        !is_stopped && self.account.outbox().is_half_free()
    }

    /// Returns true if the relay waits for the client, and the client waits neither for its
    /// tenant's quantum nor for anything else.
    pub(super) fn is_waiting_for_client(&self) -> bool {
        let has_ticket =
            matches!(&self.phase, ConnectionPhase::Open(open) if open.ticket.is_some());
        self.accepts_input() && !has_ticket
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<ConnectionStep> {
        match self.phase {
            ConnectionPhase::Open(_) | ConnectionPhase::Closing => {
                if !self.accepts_input() {
                    // Gives up the slot: others need not wait for a client that does not read.
                    if !self.has_ready_request() {
                        self.leave_queue();
                    }
                    return Poll::Pending;
                }
                if self.has_unparsed_input {
                    return match self.may_work() {
                        true => Poll::Ready(ConnectionStep::Parse),
                        false => Poll::Pending,
                    };
                }
                // What the slot was held for is done, or cannot be done now.
                self.leave_queue();
                match self
                    .stream
                    .poll_read(context, &self.account.shard.read_buffer)
                {
                    Poll::Ready(Ok(())) => Poll::Ready(ConnectionStep::Read),
                    Poll::Ready(Err(_)) => Poll::Ready(self.on_connection_lost()),
                    Poll::Pending => Poll::Pending,
                }
            }
            ConnectionPhase::Closed => Poll::Pending,
            ConnectionPhase::Lingering { .. } => {
                match self
                    .stream
                    .poll_discard(context, &self.account.shard.read_buffer)
                {
                    Poll::Ready(Ok(true)) => Poll::Ready(ConnectionStep::Read),
                    Poll::Ready(Ok(false)) => {
                        // The client may still read, so the Close frame is written.
                        self.phase = ConnectionPhase::Closed;
                        Poll::Ready(ConnectionStep::Read)
                    }
                    Poll::Ready(Err(_)) => Poll::Ready(ConnectionStep::Finished),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}
