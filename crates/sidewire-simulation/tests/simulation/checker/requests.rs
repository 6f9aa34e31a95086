//! The requests of a connection and which of them are answered.

use super::connection::ConnectionChecker;
use crate::record::{RequestKind, SentRequest};

/// Returns true if a Pong with this timestamp answers the request.
pub(super) fn gets_pong(request: &SentRequest, timestamp: i64) -> bool {
    matches!(request.what, RequestKind::Ping(sent) if sent == timestamp)
}

impl<'a> ConnectionChecker<'a> {
    /// Returns the requests that are not answered.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = &'a SentRequest> {
        let requests = self.connection.sent.iter().zip(&self.is_answered);
        let unanswered = requests.filter(|(_, is_answered)| !**is_answered);
        unanswered.map(|(request, _)| request)
    }

    /// Returns the Ping that a Pong with this timestamp answers.
    pub(super) fn ping_of(&self, timestamp: i64) -> Option<&'a SentRequest> {
        self.unanswered().find(|it| gets_pong(it, timestamp))
    }

    pub(super) fn index_of(&self, request: &str) -> usize {
        let index = self.connection.sent.iter().position(|it| it.id == request);
        let index = index.unwrap_or_else(|| panic!("{self}: nobody asked {request:?}"));
        assert!(
            !self.is_answered[index],
            "{self}: {request} is answered twice"
        );
        index
    }

    /// Returns the request that is confirmed, and checks that all before it are answered.
    pub(super) fn answered(&mut self, request: &str) -> &'a SentRequest {
        let index = self.index_of(request);
        let mut before = self.connection.sent[..index].iter().zip(&self.is_answered);
        let earlier =
            before.find(|(it, is_answered)| !**is_answered && !it.what.is_answered_at_once());
        assert!(
            earlier.is_none(),
            "{self}: {request} is confirmed before {earlier:?}"
        );
        self.is_answered[index] = true;
        &self.connection.sent[index]
    }
}
