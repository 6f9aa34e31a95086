//! Checks that a client's message is refused only for one of the contract's reasons.

use super::connection::ConnectionChecker;
use crate::{
    history::{ConnectionRecord, FrameContent, History, RequestKind, ScarceResource, Timestamp},
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
        if code == "AUTHENTICATION_FAILED" {
            assert!(
                when.time >= self.connection.token_end,
                "{self}: refused early"
            );
            return;
        }
        let index = self.index_of(request);
        let what = &self.connection.sent[index].what;
        let is_good = match what {
            RequestKind::Subscribe(asked) => asked.may_be_asked_for(),
            RequestKind::Unsubscribe(_) | RequestKind::Ping(_) => true,
            RequestKind::Event => false,
            // It is refused if the connection is subscribed to none of the topics.
            RequestKind::Typing(typing) => self.is_subscribed_at(index, typing.topics()),
            RequestKind::Presence(presence) => self.is_subscribed_at(index, presence.topics()),
        };
        match code {
            "AUTHORIZATION_FAILED" | "VALIDATION_ERROR" => {
                assert!(!is_good, "{self}: {what:?} is refused with {code}");
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
                let waiting = before
                    .filter(|(it, is_answered)| !**is_answered && !it.what.is_answered_at_once());
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
        self.connection.subscribed_when_sent(index).meets(topics)
    }
}

/// Returns true if the request was refused.
pub(super) fn is_refused(connection: &ConnectionRecord, id: &str) -> bool {
    connection
        .heard
        .iter()
        .any(|heard| matches!(&heard.what, FrameContent::Refused { request, .. } if request == id))
}
