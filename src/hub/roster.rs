//! The connections of one tenant on one shard, in the order in which they joined, with what an
//! operator wants to know about each. Knows no topics and no wire format.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    rc::Rc,
    time::Duration,
};

use sidewire_presence::ConnectionKey;
use sidewire_protocol::{EnvelopeEncoding, Topic, UserName};
use tokio::time::Instant;

use super::{
    index::{TenantIndex, TopicMembers},
    subscribers::ConnectionId,
};
use crate::{outbox::Outbox, transport::TransportKind};

/// Connections that a page looks at on a shard beyond those that it may list, if not all of them
/// match its filter.
const PASSED_OVER_MAX: usize = 1_000;

/// Who a connection belongs to, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionProfile {
    /// The user of the token.
    pub user: UserName,
    /// The address of the client, which a proxy may have reported.
    pub address: IpAddr,
    /// The way in which the client is connected.
    pub transport: TransportKind,
    /// The time at which it was admitted, in Unix seconds.
    pub since: i64,
}

/// A connection as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedConnection {
    /// Its id in the process.
    pub key: ConnectionKey,
    /// Who it belongs to.
    pub profile: ConnectionProfile,
    /// The encoding of its messages.
    pub encoding: EnvelopeEncoding,
    /// Number of its subscriptions; implicit topics are not counted.
    pub topics: usize,
    /// Number of frames that wait to be written.
    pub outbox_frames: usize,
    /// Number of bytes that wait to be written.
    pub outbox_bytes: usize,
}

/// Which connections a page lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionFilter {
    /// Only those of this user.
    pub user: Option<UserName>,
    /// Only those to which events of this topic are delivered.
    pub topic: Option<Topic>,
}

/// One page of a shard's connections.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ShardPage {
    pub(super) connections: Vec<ListedConnection>,
    /// The last connection that the page has looked at, if there may be more behind it.
    pub(super) last: Option<ConnectionId>,
    /// Number of connections that the page has looked at.
    pub(super) touched: usize,
}

/// The connections on a shard that would get an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MatchingConnections {
    /// Their number; `None` if there are too many to count.
    pub(super) count: Option<usize>,
    /// Some of them.
    pub(super) connections: Vec<ListedConnection>,
    /// Number of connections that were looked at.
    pub(super) touched: usize,
}

/// What operators may ask about a connection. The hub and the connection's task share it.
#[derive(Debug)]
pub struct ConnectionRecord {
    key: ConnectionKey,
    profile: ConnectionProfile,
    opened_at: Instant,
    outbox: Rc<Outbox>,
    topics: Cell<usize>,
    blocked_since: Cell<Option<Instant>>,
}

impl ConnectionRecord {
    pub(super) fn new(key: ConnectionKey, profile: ConnectionProfile, outbox: Rc<Outbox>) -> Self {
        Self {
            key,
            profile,
            opened_at: Instant::now(),
            outbox,
            topics: Cell::default(),
            blocked_since: Cell::default(),
        }
    }

    /// Returns the id of the connection in the process.
    #[must_use]
    pub fn key(&self) -> ConnectionKey {
        self.key
    }

    /// Returns who it belongs to.
    #[must_use]
    pub fn profile(&self) -> &ConnectionProfile {
        &self.profile
    }

    /// Returns the time for which the connection has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// Returns the outbox of the connection.
    #[must_use]
    pub fn outbox(&self) -> &Rc<Outbox> {
        &self.outbox
    }

    /// Notes since when the client has not taken what waits for it, if it does not. Returns what was
    /// noted before.
    pub fn replace_blocked_since(&self, since: Option<Instant>) -> Option<Instant> {
        self.blocked_since.replace(since)
    }

    /// Notes how many topics the connection is subscribed to.
    pub(super) fn set_topics(&self, topics: usize) {
        self.topics.set(topics);
    }

    fn list(&self) -> ListedConnection {
        ListedConnection {
            key: self.key,
            profile: self.profile.clone(),
            encoding: self.outbox.encoding(),
            topics: self.topics.get(),
            outbox_frames: self.outbox.queued_frames(),
            outbox_bytes: self.outbox.unwritten_bytes(),
        }
    }
}

/// The connections of a tenant on a shard, by id, but for those that are being closed. Ids only
/// grow, so a page that begins behind an id misses no connection that was there all the time and
/// lists none twice.
#[derive(Debug, Default)]
pub(super) struct ConnectionRoster(RefCell<BTreeMap<ConnectionId, Rc<ConnectionRecord>>>);

impl ConnectionRoster {
    pub(super) fn insert(&self, record: &Rc<ConnectionRecord>) {
        let id = record.key.id;
        self.0.borrow_mut().insert(id, Rc::clone(record));
    }

    pub(super) fn remove(&self, id: ConnectionId) {
        self.0.borrow_mut().remove(&id);
    }

    /// Lists up to `limit` of the connections behind `after` that match the filter. Looks at most
    /// at `limit` and 1,000 more of them. `index` has the subscriptions of the same connections.
    pub(super) fn page(
        &self,
        index: &TenantIndex,
        filter: &ConnectionFilter,
        after: ConnectionId,
        limit: usize,
    ) -> ShardPage {
        let touched_max = limit + PASSED_OVER_MAX;
        let filter = ResolvedFilter::new(index, filter);
        let roster = self.0.borrow();
        // The index finds the few connections of a user or a topic without looking at the others.
        if let Some(few) = filter.fewest().filter(|few| few.len() <= touched_max) {
            let ids = few.ids();
            let found = ids.len();
            let ids = ids.into_iter().filter(|id| *id > after);
            let records = ids.filter_map(|id| roster.get(&id));
            let mut page = collect_page(&filter, records, limit, touched_max);
            page.touched = found;
            return page;
        }
        let behind = roster.range((Bound::Excluded(after), Bound::Unbounded));
        let records = behind.map(|(_, record)| record);
        collect_page(&filter, records, limit, touched_max)
    }
}

impl ConnectionRoster {
    /// Lists up to `limit` of the connections that are in one of these sets. Does at
    /// most `limit` and 1,000 more look-ups; if the sets have more connections, it does not count
    /// them.
    pub(super) fn matching(&self, sets: &[TopicMembers<'_>], limit: usize) -> MatchingConnections {
        let touched_max = limit + PASSED_OVER_MAX;
        let roster = self.0.borrow();
        let subscriptions: usize = sets.iter().map(|members| members.len()).sum();
        if subscriptions <= touched_max {
            let ids: BTreeSet<_> = sets.iter().flat_map(|members| members.ids()).collect();
            let records = ids.iter().filter_map(|id| roster.get(id));
            return MatchingConnections {
                count: Some(ids.len()),
                connections: records.take(limit).map(|record| record.list()).collect(),
                touched: subscriptions,
            };
        }
        // Each connection is looked up in each of the sets.
        let looked_at = touched_max / sets.len().max(1);
        let is_in_one = |id| sets.iter().any(|members| members.contains(id));
        let records = roster.values().take(looked_at);
        let records = records.filter(|record| is_in_one(record.key.id));
        MatchingConnections {
            count: None,
            connections: records.take(limit).map(|record| record.list()).collect(),
            touched: touched_max,
        }
    }
}

/// A filter with what the index knows about it.
struct ResolvedFilter<'a> {
    user: Option<(&'a UserName, TopicMembers<'a>)>,
    topic: Option<TopicMembers<'a>>,
}

impl<'a> ResolvedFilter<'a> {
    fn new(index: &'a TenantIndex, filter: &'a ConnectionFilter) -> Self {
        let user = filter.user.as_ref();
        Self {
            user: user.map(|user| (user, index.members(&Topic::of_user(user)))),
            topic: filter.topic.as_ref().map(|topic| index.members(topic)),
        }
    }

    /// Returns the smallest set of connections that has all that match, if the filter restricts
    /// them.
    fn fewest(&self) -> Option<TopicMembers<'a>> {
        let of_user = self.user.map(|(_, members)| members);
        let sets = of_user.into_iter().chain(self.topic);
        sets.min_by_key(|members| members.len())
    }

    fn matches(&self, record: &ConnectionRecord) -> bool {
        self.user
            .is_none_or(|(user, _)| *user == record.profile.user)
            && self
                .topic
                .is_none_or(|members| members.contains(record.key.id))
    }
}

/// Makes a page of these records that match the filter, after looking at `touched_max` of them at
/// most.
fn collect_page<'a>(
    filter: &ResolvedFilter<'_>,
    records: impl Iterator<Item = &'a Rc<ConnectionRecord>>,
    limit: usize,
    touched_max: usize,
) -> ShardPage {
    let mut page = ShardPage::default();
    let mut records = records.peekable();
    while let Some(record) = records.next() {
        page.touched += 1;
        if filter.matches(record) {
            page.connections.push(record.list());
        }
        if page.connections.len() >= limit || page.touched >= touched_max {
            page.last = records.peek().map(|_| record.key.id);
            break;
        }
    }
    page
}
