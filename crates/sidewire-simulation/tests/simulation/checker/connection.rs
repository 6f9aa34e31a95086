//! Checks the frames of one connection in order: that each may come next, and that all that must
//! precede it has come.

use super::{
    ReceivedEvents,
    client_events::HeardClients,
    logs::{ModelLog, ModelLogs},
    presence::RestView,
    rights::ConnectionRights,
};
use crate::{
    history::{History, RightsCall, Timestamp},
    messages::{EventPlace, WireTopics},
    record::{
        ConnectionEnd, ConnectionRecord, FrameContent, FrameRecord, RequestKind, SentRequest,
    },
    topics::{TOPICS, TopicBits},
    world::SimulationSettings,
};

pub(super) struct ConnectionChecker<'a> {
    pub(super) number: usize,
    pub(super) connection: &'a ConnectionRecord,
    pub(super) connections: &'a [ConnectionRecord],
    pub(super) settings: &'a SimulationSettings,
    logs: &'a ModelLogs,
    /// Set by the first position that it receives.
    epoch: Option<u128>,
    pub(super) implicit: TopicBits,
    /// The topics of its token that it has not unsubscribed from.
    pub(super) claimed: TopicBits,
    is_claim_confirmed: bool,
    /// The confirmed topics that it has subscribed to.
    pub(super) subscribed: TopicBits,
    /// For each of its topics, the offset after which it gets events.
    pub(super) served_from: [u64; TOPICS.len()],
    /// The offset up to which it has received all events of its topics; `None` before it receives
    /// any position.
    pub(super) at: Option<u64>,
    /// The offsets of a replay that are still to come.
    pub(super) replay: Vec<u64>,
    /// The offset after which the replay goes on.
    pub(super) replay_after: u64,
    /// Number of further events of the replay, which appear in no answer and in no other frame.
    pub(super) replay_unheard: u64,
    pub(super) has_resumed: bool,
    pub(super) is_answered: Vec<bool>,
    pub(super) rights: ConnectionRights<'a>,
    pub(super) clients: HeardClients,
    pub(super) close: Option<(Timestamp, u16, &'a str)>,
}

impl<'a> ConnectionChecker<'a> {
    pub(super) fn new(
        number: usize,
        connections: &'a [ConnectionRecord],
        calls: &'a [RightsCall],
        logs: &'a ModelLogs,
        settings: &'a SimulationSettings,
    ) -> Self {
        let connection = &connections[number];
        Self {
            number,
            connection,
            connections,
            settings,
            logs,
            epoch: None,
            implicit: TopicBits::implicit(connection.user),
            claimed: connection.claim(),
            is_claim_confirmed: connection.token.claim.is_none(),
            subscribed: connection.claim(),
            served_from: [0; TOPICS.len()],
            at: None,
            replay: Vec::new(),
            replay_after: 0,
            replay_unheard: 0,
            has_resumed: false,
            is_answered: vec![false; connection.sent.len()],
            rights: ConnectionRights::new(connection, calls),
            clients: HeardClients::default(),
            close: None,
        }
    }

    pub(super) fn log(&self) -> &'a ModelLog {
        self.log_in(self.epoch.unwrap_or_default())
    }

    pub(super) fn log_in(&self, epoch: u128) -> &'a ModelLog {
        self.logs.log_of(self.connection.tenant, epoch)
    }

    pub(super) fn topics(&self) -> TopicBits {
        self.subscribed | self.implicit
    }

    pub(super) fn follow(
        &mut self,
        heard: &'a FrameRecord,
        received: &mut ReceivedEvents,
        history: &History,
    ) {
        assert!(self.close.is_none(), "{self} hears more behind a Close");
        // A Close, with the error before it, may come first, since some drop what is queued.
        let comes_first = match &heard.what {
            FrameContent::Claimed(_) | FrameContent::Close { .. } => true,
            FrameContent::Refused { request, .. } => request.is_empty(),
            _ => false,
        };
        assert!(
            comes_first || self.is_claim_confirmed,
            "{self} hears something before what its token subscribes to"
        );
        self.check_rights_when(&heard.what);
        match &heard.what {
            FrameContent::Claimed(topics) => self.claim_confirmed(&topics.0, history),
            FrameContent::Event { tenant, place, .. } => {
                assert_eq!(*tenant, self.connection.tenant, "{self}: not its tenant's");
                let client = (self.connection.client, *place);
                let moment = heard.when.moment;
                received.by_client.entry(client).or_insert(moment);
                self.event(*place, received, history);
            }
            FrameContent::Typing { id, typing } => {
                history.count("an event of another client");
                self.typing(id, typing, heard.when);
            }
            FrameContent::Presence { id, presence } => {
                self.presence(id, presence, heard.when, history);
            }
            FrameContent::Subscribed(topics) => {
                self.subscribed(&topics.0, heard.when, history);
                if topics.0.replayed > 0 {
                    history.count("resumed");
                }
            }
            FrameContent::Unsubscribed(topics) => self.unsubscribed(&topics.0),
            FrameContent::Revoked(topics) => self.revoked(*topics, heard.when, history),
            FrameContent::Authenticated {
                request,
                expires_at,
                revoked,
            } => self.authenticated((request, *expires_at, *revoked), heard.when, history),
            FrameContent::Pong { timestamp, place } => {
                self.pong(*timestamp, *place, heard.when, history);
            }
            FrameContent::Refused {
                code,
                request,
                scarce,
            } => self.refused(code, request, *scarce, heard.when, history),
            FrameContent::Close { code, reason } => self.close = Some((heard.when, *code, reason)),
        }
    }

    fn in_epoch(&mut self, place: EventPlace) {
        let epoch = *self.epoch.get_or_insert(place.epoch);
        assert_eq!(epoch, place.epoch, "{self}: the epoch has changed");
    }

    fn event(&mut self, place: EventPlace, received: &mut ReceivedEvents, history: &History) {
        self.in_epoch(place);
        let logged = self.log().get(place.offset).expect("it was heard");
        if !self.replay.is_empty() {
            let next = self.replay.remove(0);
            assert_eq!(place.offset, next, "{self}: not the next of the replay");
            self.replay_after = next;
            return;
        }
        self.check_replay_is_over();
        let topics = self.topics();
        assert!(
            logged.topics.meets(topics),
            "{self} hears {} without a topic of it",
            place.offset
        );
        if !logged.topics.meets(topics.exact()) {
            history.count("an event that only a wildcard brought");
        }
        let at = self.begun_at(place.offset - 1);
        assert!(
            place.offset > at,
            "{self} hears {} behind {at}",
            place.offset
        );
        self.check_nothing_lacks(at, place.offset - 1);
        self.at = Some(place.offset);
        *received
            .live
            .entry((self.connection.tenant, place))
            .or_default() += 1;
    }

    pub(super) fn check_replay_is_over(&self) {
        assert!(
            self.replay.is_empty() && self.replay_unheard == 0,
            "{self}: {:?} and {} of a replay lack",
            self.replay,
            self.replay_unheard
        );
    }

    /// Checks that no event between the two offsets relates to its topics.
    pub(super) fn check_nothing_lacks(&self, behind: u64, up_to: u64) {
        let lacks = self
            .log()
            .offsets_relating(behind..up_to, self.topics())
            .next();
        assert!(
            lacks.is_none(),
            "{self} has not heard {lacks:?} between {behind} and {up_to}"
        );
    }

    /// Checks that all events that every shard had queued by then have been received.
    pub(super) fn check_nothing_queued_lacks(&self, behind: u64, by: Timestamp) {
        let log = self.log();
        let lacks = log.range(behind..log.head()).find(|(_, it)| {
            it.topics.meets(self.topics()) && it.queued.is_some_and(|at| at.moment < by.moment)
        });
        let lacks = lacks.map(|(offset, _)| offset);
        assert!(
            lacks.is_none(),
            "{self} has not heard {lacks:?}, which was queued for it"
        );
    }

    /// Returns the offset up to which it has received everything. If none is known yet, that is
    /// `offset`, provided that no event of its implicit topics was posted below it after the
    /// connection had opened.
    fn begun_at(&mut self, offset: u64) -> u64 {
        if let Some(at) = self.at {
            return at;
        }
        let opened = self.connection.opened.moment;
        let mut before = self.log().range(0..offset);
        let lacks = before
            .find(|(_, it)| it.sent.moment > opened && it.topics.meets(self.held_at_once()))
            .map(|(offset, _)| offset);
        assert!(
            lacks.is_none(),
            "{self} has not heard {lacks:?} of its implicit topics"
        );
        for index in self.held_at_once().indices() {
            self.served_from[index] = offset;
        }
        self.at = Some(offset);
        offset
    }

    /// Returns the topics that it has had since it connected.
    pub(super) fn held_at_once(&self) -> TopicBits {
        self.implicit | self.claimed
    }

    fn claim_confirmed(&mut self, topics: &WireTopics, history: &History) {
        assert!(!self.is_claim_confirmed, "{self}: {topics:?} is confirmed");
        let claim = self.connection.claim();
        let expected = WireTopics {
            topics: claim.names().map(str::to_owned).collect(),
            ..WireTopics::default()
        };
        assert_eq!(*topics, expected, "{self}");
        self.is_claim_confirmed = true;
        history.count("a token that subscribes");
    }

    fn subscribed(&mut self, topics: &WireTopics, when: Timestamp, history: &History) {
        let request = self.answered(&topics.request);
        let RequestKind::Subscribe(asked) = &request.what else {
            panic!("{self}: {request:?} is confirmed as a Subscribe");
        };
        assert!(
            topics.repeats(asked),
            "{self}: {asked:?} comes back as {topics:?}"
        );
        assert!(
            asked.may_be_asked_for() && self.rights.grant().refuses(asked.all()).is_empty(),
            "{self}: {asked:?} is granted"
        );
        self.check_is_allowed(request, asked.all(), when, history);
        let place = topics.position.as_ref().unwrap().place();
        self.in_epoch(place);
        self.check_position(place.offset, request, when);
        let asked = (asked, request.sent.moment);
        self.check_replay_and_subscribe(asked, topics, place, when, history);
        self.at = Some(place.offset);
    }

    fn check_position(&mut self, position: u64, request: &SentRequest, when: Timestamp) {
        let head_min = self.log().head_min(request.sent.moment);
        assert!(
            position >= head_min,
            "{self}: {position} is below the head {head_min}"
        );
        self.check_stands_at(position, when);
    }

    /// Checks that all events of its topics up to `position` have been received.
    fn check_stands_at(&mut self, position: u64, when: Timestamp) {
        let head_max = self.log().head_max(when.moment);
        assert!(
            position <= head_max,
            "{self}: {position} is beyond the head {head_max}"
        );
        self.check_replay_is_over();
        let at = self.begun_at(position);
        assert!(position >= at, "{self} stands at {position} behind {at}");
        self.check_nothing_lacks(at, position);
    }

    fn unsubscribed(&mut self, topics: &WireTopics) {
        let request = self.answered(&topics.request);
        let RequestKind::Unsubscribe(asked) = &request.what else {
            panic!("{self}: {request:?} is confirmed as an Unsubscribe");
        };
        assert!(
            topics.repeats(asked),
            "{self}: {asked:?} comes back as {topics:?}"
        );
        self.check_replay_is_over();
        // Events that every shard had queued before the request was sent precede the answer.
        if let Some(at) = self.at {
            self.check_nothing_queued_lacks(at, request.sent);
        }
        self.subscribed = self.subscribed.less(topics.all());
        self.claimed = self.claimed.less(topics.all());
        self.forget_unsubscribed();
    }

    /// Returns what the client sees of others, if it stayed to the end.
    pub(super) fn rest_view(self) -> Option<RestView> {
        let stayed = matches!(self.connection.end, Some((_, ConnectionEnd::Done)));
        stayed.then_some(RestView {
            connection: self.number,
            topics: self.subscribed,
            seen: self.clients.view,
        })
    }

    fn pong(
        &mut self,
        timestamp: i64,
        place: Option<EventPlace>,
        when: Timestamp,
        history: &History,
    ) {
        let ping = self.ping_of(timestamp).expect("a Ping");
        let is_ping = |it: &&SentRequest| matches!(it.what, RequestKind::Ping(_));
        let first = self.unanswered().find(is_ping);
        // The refusal of an earlier one may wait for an answer of the backend.
        assert!(
            self.settings.asks_backend || first.is_some_and(|first| first.id == ping.id),
            "{self} hears a Pong for {ping:?} before that for {first:?}"
        );
        let index = self.index_of(&ping.id);
        self.is_answered[index] = true;
        if let Some(place) = place {
            history.count("a Pong with a position");
            self.in_epoch(place);
            self.check_stands_at(place.offset, when);
            self.at = Some(place.offset);
            self.rights.is_live();
        }
    }
}

impl std::fmt::Display for ConnectionChecker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ConnectionRecord { client, tenant, .. } = self.connection;
        write!(
            f,
            "connection {} (client {client}, tenant {tenant})",
            self.number
        )
    }
}
