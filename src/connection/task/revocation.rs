//! Takes subscriptions from the client that it may no longer have.

use sidewire_protocol::{Topic, close::CloseReason, reply::Reply, wire};

use super::{ConnectionPhase, ConnectionTask};
use crate::{
    connection::{
        conversation::{ClientRequest, TopicsRequest},
        stream::Transport,
    },
    hub::ReplayCut,
    transport::TransportKind,
};

/// Maximum number of topics in a notice, so that making it takes less than a millisecond.
const NOTICE_TOPICS_MAX: usize = 256;

impl<S: Transport> ConnectionTask<S> {
    /// Carries out the first revocation that a backend has requested.
    pub(super) fn carry_out_revocation(&mut self) {
        self.take_back_subscribe();
        let ConnectionPhase::Open(open) = &mut self.phase else {
            return;
        };
        match open.hub.carry_out_revocation() {
            // The topics of a poll are those of its request, and it is answered once.
            Some(Ok(topics))
                if !topics.is_empty() && self.account.transport() == TransportKind::Poll =>
            {
                self.begin_close(CloseReason::RightsReduced);
            }
            Some(Ok(topics)) => {
                for topics in topics.chunks(NOTICE_TOPICS_MAX) {
                    self.queue_reply(&revocation_notice(topics));
                }
                self.clear_lost();
            }
            Some(Err(ReplayCut { .. })) => self.begin_close(CloseReason::RightsReduced),
            None => {}
        }
        // If there is more, it queues behind the tenant's other work.
        self.leave_queue();
    }

    /// Puts a Subscribe that has not taken effect back before those that wait, so that it is
    /// judged again when it is carried out.
    pub(super) fn take_back_subscribe(&mut self) {
        if let ConnectionPhase::Open(open) = &mut self.phase
            && let Some(subscribe) = open.hub.take_back_subscribe()
            && let Some(answer) = open.take_unanswered()
        {
            open.waiting
                .push_front(ClientRequest::Subscribe(TopicsRequest {
                    topics: subscribe.topics,
                    resume_from: subscribe.resume_from,
                    answer,
                }));
        }
    }

    /// Removes the topics that the client has lost from the index, as far as possible now.
    pub(super) fn clear_lost(&mut self) {
        if let ConnectionPhase::Open(open) = &mut self.phase {
            open.hub.clear_lost();
        }
    }
}

/// Returns the message that tells a client which subscriptions a backend has ended.
fn revocation_notice(topics: &[Topic]) -> Reply {
    Reply::UnsubscribeConfirmed {
        lists: Vec::new(),
        fields: wire::UnsubscribeConfirmed {
            topics: topics.iter().map(Topic::to_string).collect(),
            request_message_id: String::new(),
        },
    }
}
