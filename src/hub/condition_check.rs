//! The conditions of a call, and the search for the last events of their topics. Most of the
//! search is done in parts before the append; events appended since are searched as part of it.

use std::sync::Arc;

use sidewire_protocol::Position;
use tokio::time::Instant;

use super::tenant::Tenant;
use crate::log::{AppendCondition, EVENTS_PER_PART, Log, TopicSearch, UnmetCondition, find_unmet};

/// The conditions of an append, and the progress of their check.
#[derive(Debug)]
pub struct ConditionCheck<'a> {
    conditions: &'a [AppendCondition],
    search: TopicSearch,
    /// The tenant whose log is being searched; `None` before the search begins.
    tenant: Option<Arc<Tenant>>,
    is_searched: bool,
}

impl<'a> ConditionCheck<'a> {
    /// Creates a check. Its search has not begun yet.
    #[must_use]
    pub fn new(conditions: &'a [AppendCondition]) -> Self {
        Self {
            conditions,
            search: TopicSearch::new(conditions.iter().map(|it| &it.topic)),
            tenant: None,
            is_searched: conditions.is_empty(),
        }
    }

    pub(super) fn conditions(&self) -> &'a [AppendCondition] {
        self.conditions
    }

    /// Returns true if nothing more has to be searched before the append.
    #[must_use]
    pub fn is_searched(&self) -> bool {
        self.is_searched
    }

    /// Marks the search as complete, because the tenant has no log.
    pub(super) fn skip_search(&mut self) {
        self.is_searched = true;
    }

    /// Searches a part of the tenant's log. Returns the work done, in topics of events.
    pub(super) fn search_part(&mut self, tenant: &Arc<Tenant>, now: Instant) -> usize {
        if self.is_for_tenant(tenant) {
            let (events, is_all) = tenant.events_after(self.search.up_to(), EVENTS_PER_PART);
            self.is_searched = is_all;
            return self.search.search_events(events.iter());
        }
        let (work, is_all) = tenant.search_last_offsets(&mut self.search, now);
        self.tenant = Some(Arc::clone(tenant));
        self.is_searched = is_all;
        work
    }

    /// Searches the events appended since, in the same step as the append. Returns false if there
    /// are too many of them for one step.
    pub(super) fn finish_search(&mut self, tenant: &Arc<Tenant>, log: &Log) -> bool {
        if self.conditions.is_empty() {
            return true;
        }
        let rest = log.events_after(self.search.up_to());
        self.is_searched = self.is_for_tenant(tenant) && rest.len() <= EVENTS_PER_PART;
        if self.is_searched {
            self.search.search_events(rest);
        }
        self.is_searched
    }

    /// Returns the conditions that do not hold for the log. The search must be complete.
    pub(super) fn unmet_conditions(&self, log: &Log, now: Instant) -> Vec<UnmetCondition> {
        let tail = log.tail_at(now);
        find_unmet(self.conditions, Some(tail.epoch), |topic| {
            let offset = self.search.last_of(topic)?;
            (offset > tail.offset).then_some(Position { offset, ..tail })
        })
    }

    fn is_for_tenant(&self, tenant: &Arc<Tenant>) -> bool {
        self.tenant
            .as_ref()
            .is_some_and(|searched| Arc::ptr_eq(searched, tenant))
    }
}
