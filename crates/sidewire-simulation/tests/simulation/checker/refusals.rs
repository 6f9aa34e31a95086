//! Checks that a client's message is refused only for one of the contract's reasons.

use super::connection::ConnectionChecker;
use crate::{
    history::{History, Timestamp},
    record::{ConnectionRecord, FrameContent, RequestKind, ScarceResource, SentRequest},
    topics::TopicBits,
};

impl ConnectionChecker<'_> {
    pub(super) fn refused(
        &mut self,
        code: &str,
        request: &str,
        scarce: Option<ScarceResource>,
        when: Timestamp,
        history: &History,
    ) {
        if request.is_empty() {
            assert_eq!(code, "AUTHENTICATION_FAILED", "{self}");
            assert!(when.time >= self.token_end_min(), "{self}: refused early");
            return;
        }
        let index = self.index_of(request);
        let asked_for = &self.connection.sent[index];
        let SentRequest { what, sent, .. } = asked_for;
        let is_granted = |topics: TopicBits| !self.rights.may_be_refused_since(sent.moment, topics);
        let is_good = match what {
            RequestKind::Subscribe(asked) => asked.may_be_asked_for() && is_granted(asked.all()),
            RequestKind::Unsubscribe(_) | RequestKind::Ping(_) | RequestKind::Authenticate(_) => {
                true
            }
            RequestKind::Event => false,
            // It is refused if the connection is subscribed to none of the topics.
            RequestKind::Typing(typing) => {
                let topics = typing.topics();
                is_granted(topics.exact()) && self.is_subscribed_at(index, topics)
            }
            RequestKind::Presence(presence) => {
                let topics = presence.topics();
                is_granted(topics.exact()) && self.is_subscribed_at(index, topics)
            }
        };
        match code {
            "AUTHENTICATION_FAILED" | "AUTHORIZATION_FAILED"
                if let RequestKind::Authenticate(presented) = what =>
            {
                self.check_refused_token(code, presented, when, history);
            }
            "AUTHORIZATION_FAILED"
                if let RequestKind::Subscribe(asked) = what
                    && is_good
                    && self.may_be_denied(asked_for, asked.all(), when, history) =>
            {
                history.count("a Subscribe that a backend denied");
            }
            "INTERNAL_ERROR" => self.check_is_unanswered(asked_for, when, history),
            "AUTHORIZATION_FAILED" | "VALIDATION_ERROR" => {
                assert!(!is_good, "{self}: {what:?} is refused with {code}");
                if matches!(what, RequestKind::Subscribe(asked) if asked.may_be_asked_for()) {
                    history.count("a Subscribe beyond a narrower grant");
                }
            }
            // Rates are checked separately, with all requests of the user.
            "RATE_LIMIT_EXCEEDED" if scarce == Some(ScarceResource::Rate) => {}
            "RATE_LIMIT_EXCEEDED" if scarce == Some(ScarceResource::Memory) => {
                let memory_max = self.settings.config.limits.memory_max;
                assert!(
                    matches!(what, RequestKind::Subscribe(_) | RequestKind::Presence(_))
                        && memory_max < 1 << 30,
                    "{self}: {what:?} finds no memory of {memory_max} bytes"
                );
            }
            "RATE_LIMIT_EXCEEDED" if scarce == Some(ScarceResource::Presence) => {
                history.count("a presence message beyond a bound");
                let presence = &self.settings.config.presence;
                assert!(
                    matches!(what, RequestKind::Presence(_))
                        && (presence.messages_per_user < 16 || presence.users_per_topic < 1_000),
                    "{self}: {what:?} exceeds a bound of presence"
                );
            }
            "RATE_LIMIT_EXCEEDED" => {
                let before = self.connection.sent[..index].iter().zip(&self.is_answered);
                // Behind a Subscribe that a backend is asked about, everything waits but Pongs and
                // new tokens, so also the refusals of others.
                let waits =
                    |what: &RequestKind| self.settings.asks_backend || !what.is_answered_at_once();
                let waiting = before.filter(|(it, is_answered)| !**is_answered && waits(&it.what));
                assert!(
                    waiting.count() >= 16,
                    "{self}: refused with less than 16 waiting"
                );
            }
            other => panic!("{self} is refused with {other}"),
        }
        self.is_answered[index] = true;
    }

    /// Returns true if the connection was certainly subscribed to one of the topics when it sent
    /// the request with this index.
    fn is_subscribed_at(&self, index: usize, topics: TopicBits) -> bool {
        let held = self.connection.subscribed_when_sent(index) & self.subscribed;
        held.meets(topics)
    }
}

/// Returns true if the request was refused.
pub(super) fn is_refused(connection: &ConnectionRecord, id: &str) -> bool {
    connection
        .heard
        .iter()
        .any(|heard| matches!(&heard.what, FrameContent::Refused { request, .. } if request == id))
}
