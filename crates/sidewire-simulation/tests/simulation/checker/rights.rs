//! Follows the rights of a connection: its token, and the subscriptions that a newer token or a
//! backend takes away.

use std::time::Duration;

use super::connection::ConnectionChecker;
use crate::{
    history::{History, Moment, RightsCall, RightsChange, Timestamp},
    record::{ConnectionRecord, FrameContent, RequestKind},
    tokens::{PresentedToken, TokenDefect, TopicGrant},
    topics::{TOPICS, TopicBits},
};

/// Time for which a shard may be held up when a token expires.
const HELD_UP_MAX: Duration = Duration::from_secs(4);

/// What a connection may do, as of the last frame.
pub(super) struct ConnectionRights<'a> {
    /// When its token is no longer accepted.
    pub(super) token_end: Duration,
    /// What its tokens granted, each with the moment at which it heard that it was taken.
    grants: Vec<(Moment, TopicGrant)>,
    /// The subscriptions that it has lost, each with the moment at which it heard of it.
    lost: Vec<(Moment, TopicBits)>,
    /// The moment since which each of its topics has stood.
    pub(super) stands_since: [Moment; TOPICS.len()],
    /// The topics of the replay.
    pub(super) replay_topics: TopicBits,
    /// True if its events may come from the log.
    may_catch_up: bool,
    all_calls: &'a [RightsCall],
    /// The calls for its user that it may not have been told of yet, by number.
    pub(super) calls: Vec<(usize, &'a RightsCall)>,
    /// The number of ended subscriptions, or the end of the connection, of which it was told
    /// because of a call, if it is known which one it was.
    pub(super) told: Vec<(usize, u64)>,
}

impl<'a> ConnectionRights<'a> {
    pub(super) fn new(connection: &ConnectionRecord, calls: &'a [RightsCall]) -> Self {
        let is_its =
            |call: &RightsCall| call.tenant == connection.tenant && call.user == connection.user;
        let its_calls = calls.iter().enumerate().filter(|(_, call)| is_its(call));
        Self {
            token_end: connection.token.end(),
            grants: vec![(0, connection.token.grant)],
            lost: Vec::new(),
            stands_since: [connection.opened.moment; TOPICS.len()],
            replay_topics: TopicBits::NONE,
            may_catch_up: false,
            all_calls: calls,
            calls: its_calls.collect(),
            told: Vec::new(),
        }
    }

    pub(super) fn grant(&self) -> TopicGrant {
        self.grants.last().expect("that of the first token").1
    }

    /// Returns true if one of the grants since this moment refuses one of the topics.
    pub(super) fn may_be_refused_since(&self, moment: Moment, topics: TopicBits) -> bool {
        let before = self.grants.iter().filter(|(when, _)| *when < moment);
        let since = &self.grants[before.count().saturating_sub(1)..];
        since.iter().any(|(_, it)| !it.refuses(topics).is_empty())
    }

    /// Returns for each step since this moment the topics that have been lost in it and later.
    pub(super) fn lost_since(&self, moment: Moment) -> impl Iterator<Item = TopicBits> {
        let since = self.lost.iter().rev().filter(move |it| it.0 > moment);
        since.scan(TopicBits::NONE, |all, (_, lost)| {
            *all |= *lost;
            Some(*all)
        })
    }

    pub(super) fn subscribed(&mut self, topics: TopicBits, when: Timestamp) {
        for index in topics.indices() {
            self.stands_since[index] = when.moment;
        }
    }

    /// Returns the calls for the user of a connection, from this time on.
    pub(super) fn calls_for(
        &self,
        connection: &ConnectionRecord,
        since: Duration,
        until: Timestamp,
    ) -> impl Iterator<Item = &'a RightsCall> {
        let (tenant, user) = (connection.tenant, connection.user);
        self.all_calls.iter().filter(move |call| {
            (call.tenant, call.user) == (tenant, user)
                && call.sent.time >= since
                && call.sent.moment < until.moment
        })
    }

    /// Notes that the connection resumes.
    pub(super) fn resumes(&mut self, topics: TopicBits) {
        self.replay_topics = topics;
        self.may_catch_up = true;
    }

    /// Notes that the connection receives events as they are published.
    pub(super) fn is_live(&mut self) {
        self.may_catch_up = false;
    }
}

impl ConnectionChecker<'_> {
    /// Checks that nothing was queued for the client behind a call that takes its rights, or when
    /// its token had expired: the relay cannot have queued a frame before its cause.
    pub(super) fn check_rights_when(&mut self, what: &FrameContent) {
        let Some(cause) = self.cause_of(what) else {
            return;
        };
        assert!(
            cause.time <= self.rights.token_end + HELD_UP_MAX,
            "{self} outlives its token: {what:?}"
        );
        let heard = self.connection.heard.first().expect("this frame");
        let calls = std::mem::take(&mut self.rights.calls);
        let (done, open) = calls.into_iter().partition::<Vec<_>, _>(|(_, call)| {
            let answered = call.answer.as_ref();
            answered.is_some_and(|(when, _)| when.moment < cause.moment)
        });
        self.rights.calls = open;
        for (_, call) in done {
            match call.what {
                RightsChange::EndSubscriptions(ended) => self.check_has_lost(ended, call),
                RightsChange::Disconnect { .. } => assert!(
                    heard.when.moment > call.sent.moment,
                    "{self} hears {what:?} behind {call:?}"
                ),
            }
        }
    }

    /// Returns a time before which the relay cannot have queued the frame.
    fn cause_of(&self, what: &FrameContent) -> Option<Timestamp> {
        let request = match what {
            FrameContent::Event { place, .. } => {
                return Some(self.log_in(place.epoch).get(place.offset)?.sent);
            }
            FrameContent::Subscribed(said) | FrameContent::Unsubscribed(said) => &said.0.request,
            FrameContent::Authenticated { request, .. }
            | FrameContent::Refused { request, .. }
            | FrameContent::Typing { id: request, .. } => request,
            FrameContent::Pong { timestamp, .. } => {
                return self.ping_of(*timestamp).map(|ping| ping.sent);
            }
            FrameContent::Claimed(_)
            | FrameContent::Presence { .. }
            | FrameContent::Revoked(_)
            | FrameContent::Close { .. } => return None,
        };
        let sender = request.split_once('.')?.0.parse().ok();
        let sender: &ConnectionRecord = self.connections.get::<usize>(sender?)?;
        let request = sender.sent.iter().find(|it| it.id == *request);
        request.map(|request| request.sent)
    }

    /// Returns the topics of its Unsubscribes that are not answered, which may be done in parts.
    pub(super) fn being_unsubscribed(&self) -> TopicBits {
        self.unanswered().fold(TopicBits::NONE, |set, request| {
            let RequestKind::Unsubscribe(asked) = &request.what else {
                return set;
            };
            set | asked.all()
        })
    }

    pub(super) fn authenticated(
        &mut self,
        (id, expires_at, revoked): (&str, i64, TopicBits),
        when: Timestamp,
        history: &History,
    ) {
        let index = self.index_of(id);
        self.is_answered[index] = true;
        let request = &self.connection.sent[index];
        let RequestKind::Authenticate(presented) = &request.what else {
            panic!("{self}: {request:?} is answered as an Authenticate");
        };
        let token = &presented.token;
        assert!(
            presented.may_be_taken_at(request.sent.time),
            "{self}: {presented:?} is taken"
        );
        assert_eq!(
            u64::try_from(expires_at),
            Ok(token.expires_at.as_secs()),
            "{self}: {presented:?}"
        );
        history.count("a newer token");
        self.note_questions_beside_token(request, history);
        if token.end() < self.rights.token_end {
            history.count("a newer token that expires earlier");
        }
        let refused = token.grant.refuses(self.subscribed);
        self.lose(revoked, refused, request.sent, when);
        if !revoked.is_empty() {
            history.count("a newer token that ends subscriptions");
        }
        self.rights.token_end = token.end();
        self.rights.grants.push((when.moment, token.grant));
    }

    /// Applies the loss of subscriptions. `expected`: all that had to be lost. `began`: when it was
    /// requested.
    pub(super) fn lose(
        &mut self,
        lost: TopicBits,
        expected: TopicBits,
        began: Timestamp,
        when: Timestamp,
    ) {
        assert!(
            lost.less(expected).is_empty()
                && expected.less(lost | self.being_unsubscribed()).is_empty(),
            "{self} loses {lost:?} and should lose {expected:?}"
        );
        let replays = !self.replay.is_empty() || self.replay_unheard > 0;
        assert!(
            !replays || !lost.meets(self.rights.replay_topics),
            "{self} loses {lost:?} during a replay"
        );
        // What was queued before precedes the answer, if it did not have to be read from the log.
        let resumes = self.unanswered().any(|it| resumed(&it.what).is_some());
        if let Some(at) = self.at.filter(|_| !self.rights.may_catch_up && !resumes) {
            self.check_nothing_queued_lacks(at, began);
        }
        if lost.is_empty() {
            return;
        }
        self.rights.may_catch_up = true;
        self.rights.lost.push((when.moment, lost));
        self.subscribed = self.subscribed.less(lost);
        self.claimed = self.claimed.less(lost);
        self.forget_unsubscribed();
    }

    /// Checks that a presented token is refused for the right reason.
    pub(super) fn check_refused_token(
        &self,
        code: &str,
        presented: &PresentedToken,
        when: Timestamp,
        history: &History,
    ) {
        let is_so = match code {
            "AUTHENTICATION_FAILED" => {
                presented.defect == Some(TokenDefect::Unsigned)
                    || when.time >= presented.token.end()
            }
            "AUTHORIZATION_FAILED" => presented.defect == Some(TokenDefect::OfAnother),
            _ => false,
        };
        assert!(is_so, "{self}: {presented:?} is refused with {code}");
        history.count("a newer token that is refused");
    }

    /// Returns the earliest time at which its token may have expired, when it is closed: a newer
    /// one may have been taken, and the answer lost.
    pub(super) fn token_end_min(&self) -> Duration {
        let ends = self.unanswered().filter_map(|request| match &request.what {
            RequestKind::Authenticate(presented) if presented.defect.is_none() => {
                Some(presented.token.end())
            }
            _ => None,
        });
        ends.fold(self.rights.token_end, Duration::min)
    }
}

/// Returns the topics of a Subscribe that resumes.
pub(super) fn resumed(what: &RequestKind) -> Option<TopicBits> {
    match what {
        RequestKind::Subscribe(asked) if asked.may_be_asked_for() => {
            asked.position.as_ref().map(|_| asked.all())
        }
        _ => None,
    }
}
