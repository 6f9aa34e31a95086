//! What people ask about tenants: which there are, the busiest topics of one, who would get an
//! event, and the newest events of its log. Every answer is bounded. Knows no HTTP.

use std::{cmp::Reverse, iter, sync::Arc, time::Duration};

use sidewire_protocol::{Position, TenantName, Topic};
use tokio::sync::oneshot;

use super::{
    HubAdmin, ShardTimeout, TenantView,
    admin::{TenantRequest, view_of},
    roster::{ListedConnection, MatchingConnections},
    wildcards::covers_its_kind,
};
use crate::event::Event;

/// Events of a log that are listed at once while it is locked.
const EVENTS_AT_ONCE: usize = 128;

/// A tenant as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTenant {
    /// Its name.
    pub name: TenantName,
    /// A snapshot of it.
    pub view: TenantView,
}

/// One page of the tenants.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TenantListing {
    /// The tenants, those with most connections first.
    pub tenants: Vec<ListedTenant>,
    /// Number of tenants that match the search.
    pub found: usize,
    /// Number of all tenants.
    pub all: usize,
}

/// A subscribed topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTopic {
    /// The topic, which may be a wildcard.
    pub topic: Topic,
    /// Number of subscriptions that match its events: those to the topic and those to its kind.
    pub subscriptions: usize,
}

/// The busiest topics of a tenant.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TopicListing {
    /// The topics, those with most subscriptions first.
    pub topics: Vec<ListedTopic>,
    /// True if a shard has more topics than it looks at for one answer.
    pub is_partial: bool,
}

/// The connections that would get an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EventAudience {
    /// Number of subscriptions that match each topic, in the order of the topics.
    pub subscriptions: Vec<usize>,
    /// Number of connections that would get the event; `None` if there are too many to count.
    pub matched: Option<usize>,
    /// Some of these connections.
    pub connections: Vec<ListedConnection>,
}

/// Which of the newest events of a log are wanted.
#[derive(Debug, Clone)]
pub struct EventSearch {
    /// Only events of this topic, or of all topics of a kind if it is a wildcard.
    pub topic: Option<Topic>,
    /// Only events after this position. It has no effect if it is of another epoch.
    pub after: Option<Position>,
    /// Most events that are returned.
    pub count: usize,
    /// Most events that are looked at.
    pub looked_at_max: usize,
}

/// The newest events of a log.
#[derive(Debug)]
pub struct NewestEvents {
    /// The events, oldest first.
    pub events: Vec<Arc<Event>>,
    /// The head of the log when the search began.
    pub head: Position,
    /// Number of events of the tenant after the wanted position that were not looked at. An event
    /// that has left the log counts too.
    pub skipped: u64,
}

/// A request for the busiest topics of a tenant on one shard.
#[derive(Debug)]
pub(super) struct TopicsRequest {
    pub(super) tenant: TenantName,
    /// Only topics whose text contains this.
    pub(super) search: Arc<str>,
    pub(super) limit: usize,
    pub(super) answer: oneshot::Sender<ShardTopics>,
}

/// The busiest topics of a tenant on one shard.
#[derive(Debug, Default)]
pub(super) struct ShardTopics {
    pub(super) topics: Vec<Topic>,
    /// True if the shard has more topics than it has looked at.
    pub(super) is_partial: bool,
}

/// A request for the connections of a tenant on one shard that would get an event.
#[derive(Debug)]
pub(super) struct AudienceRequest {
    pub(super) tenant: TenantName,
    pub(super) topics: Arc<[Topic]>,
    /// Most connections that are listed. With 0 only the subscriptions are counted.
    pub(super) limit: usize,
    pub(super) answer: oneshot::Sender<ShardAudience>,
}

/// The connections of a tenant on one shard that would get an event.
#[derive(Debug, Default)]
pub(super) struct ShardAudience {
    /// Empty if the tenant has no connection on the shard.
    pub(super) subscriptions: Vec<usize>,
    pub(super) matching: MatchingConnections,
}

impl HubAdmin {
    /// Lists up to `limit` of the tenants whose name contains `search`, without the first `skip`
    /// of them. Makes no call to a shard. Looks at every tenant, so with many of them it belongs on
    /// a thread that may block.
    #[must_use]
    pub fn list_tenants(&self, search: &str, skip: usize, limit: usize) -> TenantListing {
        let tenants = self.registry.all_tenants();
        let all = tenants.len();
        let found = tenants
            .into_iter()
            .filter(|tenant| tenant.name().as_str().contains(search));
        let mut found: Vec<_> = found
            .map(|tenant| (tenant.audience().totals().connections, tenant))
            .collect();
        found.sort_by(|(one, a), (other, b)| {
            let by_name = || a.name().as_str().cmp(b.name().as_str());
            other.cmp(one).then_with(by_name)
        });
        TenantListing {
            found: found.len(),
            all,
            tenants: found
                .into_iter()
                .skip(skip)
                .take(limit)
                .map(|(_, tenant)| ListedTenant {
                    name: tenant.name().clone(),
                    view: view_of(&tenant),
                })
                .collect(),
        }
    }

    /// Lists up to `limit` topics of the tenant whose text contains `search`.
    ///
    /// # Errors
    ///
    /// When a shard does not answer within `timeout`.
    pub async fn list_topics(
        &self,
        tenant: &TenantName,
        search: &str,
        limit: usize,
        timeout: Duration,
    ) -> Result<TopicListing, ShardTimeout> {
        let search: Arc<str> = search.into();
        let ask = |answer| {
            TenantRequest::Topics(TopicsRequest {
                tenant: tenant.clone(),
                search: Arc::clone(&search),
                limit,
                answer,
            })
        };
        let shards: Vec<ShardTopics> = self.ask_shards(timeout, ask).await?;
        let is_partial = shards.iter().any(|shard| shard.is_partial);
        let mut topics: Vec<_> = shards.into_iter().flat_map(|shard| shard.topics).collect();
        topics.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        topics.dedup();
        // A topic may be among the busiest of one shard only.
        let topics: Arc<[Topic]> = topics.into();
        let audience = self.count_audience(tenant, &topics, 0, timeout).await?;
        let mut topics: Vec<_> = iter::zip(topics.iter(), audience.subscriptions)
            .map(|(topic, subscriptions)| ListedTopic {
                topic: topic.clone(),
                subscriptions,
            })
            .collect();
        // Stable, so that topics with as many subscriptions stay in the order of their texts.
        topics.sort_by_key(|it| Reverse(it.subscriptions));
        topics.truncate(limit);
        Ok(TopicListing { topics, is_partial })
    }

    /// Counts the connections of the tenant that would get an event with these topics, and lists
    /// up to `limit` of them; with 0 only the subscriptions are counted.
    ///
    /// # Errors
    ///
    /// When a shard does not answer within `timeout`.
    pub async fn count_audience(
        &self,
        tenant: &TenantName,
        topics: &Arc<[Topic]>,
        limit: usize,
        timeout: Duration,
    ) -> Result<EventAudience, ShardTimeout> {
        let ask = |answer| {
            TenantRequest::Audience(AudienceRequest {
                tenant: tenant.clone(),
                topics: Arc::clone(topics),
                limit,
                answer,
            })
        };
        let mut audience = EventAudience {
            subscriptions: vec![0; topics.len()],
            matched: Some(0),
            connections: Vec::new(),
        };
        for shard in self.ask_shards::<ShardAudience>(timeout, ask).await? {
            for (sum, here) in audience.subscriptions.iter_mut().zip(shard.subscriptions) {
                *sum += here;
            }
            let matching = shard.matching;
            audience.matched = audience
                .matched
                .zip(matching.count)
                .map(|(sum, here)| sum + here);
            audience.connections.extend(matching.connections);
        }
        audience.connections.truncate(limit);
        Ok(audience)
    }

    /// Finds the newest events of the tenant's log; `None` if there is no such tenant. Makes no
    /// call to a shard, and locks the log for a few events at a time.
    #[must_use]
    pub fn find_newest_events(
        &self,
        name: &TenantName,
        search: &EventSearch,
    ) -> Option<NewestEvents> {
        let tenant = self.registry.find(name)?;
        let head = tenant.head();
        let after = search.after.filter(|after| after.epoch == head.epoch);
        let first = after.map_or(0, |after| after.offset);
        let mut newest = NewestEvents {
            events: Vec::new(),
            head,
            skipped: 0,
        };
        let (mut before, mut looked_at) = (head.offset.saturating_add(1), 0);
        while newest.events.len() < search.count && looked_at < search.looked_at_max {
            let missing = search.count - newest.events.len();
            let at_once = match search.topic {
                Some(_) => search.looked_at_max - looked_at,
                None => missing,
            };
            let events = tenant.events_before(before, first, at_once.min(EVENTS_AT_ONCE));
            let Some(oldest) = events.last() else {
                break;
            };
            before = oldest.position().offset;
            looked_at += events.len();
            for event in events {
                let topic = search.topic.as_ref();
                if topic.is_none_or(|topic| is_of_topic(&event, topic)) {
                    if newest.events.len() == search.count {
                        before = event.position().offset.saturating_add(1);
                        break;
                    }
                    newest.events.push(event);
                }
            }
        }
        newest.events.reverse();
        if after.is_some() {
            newest.skipped = before.saturating_sub(first.saturating_add(1));
        }
        Some(newest)
    }

    /// Returns the event at the position, if the log still has it.
    #[must_use]
    pub fn find_event(&self, name: &TenantName, position: Position) -> Option<Arc<Event>> {
        let tenant = self.registry.find(name)?;
        let (events, _) = tenant.events_after(position.offset.checked_sub(1)?, 1);
        let found = events.into_iter().next();
        found.filter(|event| event.position() == position)
    }
}

/// Returns true if an event with these topics is one of the topic, which may be a wildcard.
fn is_of_topic(event: &Event, wanted: &Topic) -> bool {
    let mut topics = event.topics().iter();
    match covers_its_kind(wanted) {
        true => topics.any(|topic| topic.kind() == wanted.kind()),
        false => topics.any(|topic| topic == wanted),
    }
}
