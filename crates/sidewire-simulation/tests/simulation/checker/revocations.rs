//! Checks what backends that take rights away cause: the end of subscriptions and of connections,
//! and the answers to their calls.

use std::{collections::BTreeMap, time::Duration};

use super::{answers::GONE_AFTER, connection::ConnectionChecker, rights::resumed};
use crate::{
    history::{History, RightsCall, RightsChange, Timestamp},
    record::{ConnectionRecord, RequestKind},
    response_client::ONLOOKER,
    topics::{TOPICS, TopicBits},
};

impl ConnectionChecker<'_> {
    pub(super) fn check_has_lost(&self, ended: TopicBits, call: &RightsCall) {
        let stands = (self.subscribed & ended).less(self.being_unsubscribed());
        let mut stands = stands.indices();
        let kept = stands.find(|index| self.rights.stands_since[*index] < call.sent.moment);
        assert!(
            kept.is_none(),
            "{self} still has {:?} behind {call:?}",
            kept.map(|index| TOPICS[index])
        );
    }

    /// Checks that a call for its user ends exactly these subscriptions.
    pub(super) fn revoked(&mut self, topics: TopicBits, when: Timestamp, history: &History) {
        assert!(!topics.is_empty(), "{self} is told that nothing has ended");
        let partly = self.being_unsubscribed();
        let is_it = |(_, call): &&(usize, &RightsCall)| match call.what {
            RightsChange::EndSubscriptions(ended) => {
                let lost = self.subscribed & ended;
                call.sent.moment < when.moment && lost.less(partly) == topics.less(partly)
            }
            RightsChange::Disconnect { .. } => false,
        };
        let its = self.rights.calls.iter().filter(is_it);
        let its: Vec<_> = its.copied().collect();
        let Some((number, first)) = its.first() else {
            panic!("{self}: no backend has ended {topics:?}");
        };
        if its.len() == 1 {
            let count = topics.indices().count() as u64;
            self.rights.told.push((*number, count));
        }
        self.lose(topics, topics, first.sent, when);
        history.count("subscriptions that a backend has ended");
    }

    /// Returns the most subscriptions that it may have lost from this time on.
    pub(super) fn topics_lost_max(&self, since: Duration, until: Timestamp) -> usize {
        let possible = self.connection.possible_topics();
        let by_calls = self.rights.calls_for(self.connection, since, until);
        let by_calls = by_calls.map(|call| match call.what {
            RightsChange::EndSubscriptions(ended) => ended & possible,
            RightsChange::Disconnect { .. } => TopicBits::NONE,
        });
        let sent = self.connection.sent.iter();
        let sent = sent.filter(|it| it.sent.time >= since && it.sent.moment < until.moment);
        let by_tokens = sent.map(|request| match &request.what {
            RequestKind::Authenticate(presented) => presented.token.grant.refuses(possible),
            _ => TopicBits::NONE,
        });
        let lost = by_calls.chain(by_tokens);
        lost.map(|lost| lost.indices().count()).sum()
    }

    /// Checks that a backend has asked for the end of the connection.
    pub(super) fn check_is_disconnected(&mut self, reconnect: bool, when: Timestamp) {
        let expected = RightsChange::Disconnect { reconnect };
        let calls = self.rights.calls.iter();
        let its = calls.filter(|(_, it)| it.what == expected && it.sent.moment < when.moment);
        let its: Vec<_> = its.map(|(number, _)| *number).collect();
        assert!(!its.is_empty(), "{self} is disconnected by nobody");
        if let [number] = its[..] {
            self.rights.told.push((number, 1));
        }
    }

    /// Checks that it has lost a topic of a replay that was under way.
    pub(super) fn check_replay_is_cut(&self, when: Timestamp) {
        let mut replayed = TopicBits::NONE;
        if !self.replay.is_empty() || self.replay_unheard > 0 {
            replayed |= self.rights.replay_topics;
        }
        for request in self.unanswered() {
            let Some(asked) = resumed(&request.what) else {
                continue;
            };
            replayed |= asked;
            if !self.has_resumed {
                replayed |= self.claimed;
            }
        }
        let mut calls = self.rights.calls.iter();
        let is_cut_by_call = calls.any(|(_, call)| match call.what {
            RightsChange::EndSubscriptions(ended) => {
                call.sent.moment < when.moment && ended.meets(replayed)
            }
            RightsChange::Disconnect { .. } => false,
        });
        let is_cut_by_token = self.unanswered().any(|request| match &request.what {
            RequestKind::Authenticate(it) => {
                it.may_be_taken_at(request.sent.time)
                    && !it.token.grant.refuses(replayed).is_empty()
            }
            _ => false,
        });
        assert!(
            is_cut_by_call || is_cut_by_token,
            "{self}: its replay of {replayed:?} is cut for nothing"
        );
    }

    /// Checks that a client that stayed to the end was not to be disconnected.
    pub(super) fn check_may_stay(&self) {
        let Some(first) = self.connection.heard.first() else {
            return;
        };
        let mut calls = self.rights.calls.iter();
        let missed = calls.find(|(_, call)| {
            matches!(call.what, RightsChange::Disconnect { .. })
                && call.answer.is_some()
                && call.sent.moment > first.when.moment
        });
        assert!(missed.is_none(), "{self} stays in spite of {missed:?}");
    }
}

/// Checks that the answers to the calls lie between the number of subscriptions or connections of
/// which clients were told that they ended because of it, and the number of those that could have.
pub(super) fn check_answers(history: &History, told: &BTreeMap<usize, u64>) {
    let connections = history.connections.borrow();
    for (number, call) in history.rights.borrow().iter().enumerate() {
        let Some((answered, count)) = call.answer else {
            continue;
        };
        let possible = connections.iter().filter(|it| {
            it.tenant == call.tenant
                && it.user == call.user
                && it.asked.moment < answered.moment
                && it
                    .end
                    .is_none_or(|(end, _)| end.time + GONE_AFTER > call.sent.time)
        });
        let responses = history.responses.borrow();
        let responses = responses
            .iter()
            .filter(|it| call.user == ONLOOKER && it.may_be_open(call.tenant, call.sent, answered));
        let topics = possible.map(ConnectionRecord::possible_topics);
        let topics = topics.chain(responses.map(|it| it.topics));
        let most = match call.what {
            RightsChange::EndSubscriptions(ended) => topics
                .map(|topics| (topics & ended).indices().count())
                .sum(),
            RightsChange::Disconnect { .. } => topics.count(),
        } as u64;
        let least = told.get(&number).copied().unwrap_or_default();
        assert!(
            (least..=most).contains(&count),
            "{count} is answered, {least} to {most} are possible: {call:?}"
        );
    }
}
