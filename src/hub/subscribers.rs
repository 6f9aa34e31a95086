//! A set of outboxes that receive the same events.

use std::rc::Rc;

use indexmap::IndexMap;

use crate::outbox::Outbox;

/// Identifies a connection within its shard.
pub(super) type ConnectionId = u64;

/// A set of outboxes. Many topics have one subscriber, and a user often has one connection, so a
/// single outbox is stored inline, without an allocation.
#[derive(Debug, Default)]
pub(super) enum Subscribers {
    #[default]
    None,
    One(ConnectionId, Rc<Outbox>),
    /// An `IndexMap`, because its values are contiguous for the fan-out and one is removed in
    /// constant time.
    Many(Box<IndexMap<ConnectionId, Rc<Outbox>>>),
}

impl Subscribers {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(many) => many.len(),
        }
    }

    /// Adds an outbox, unless it is in the set.
    pub(super) fn insert(&mut self, id: ConnectionId, outbox: &Rc<Outbox>) {
        match self {
            Self::None => *self = Self::One(id, Rc::clone(outbox)),
            Self::One(only, _) if *only == id => {}
            Self::One(only, first) => {
                let both = [(*only, Rc::clone(first)), (id, Rc::clone(outbox))];
                *self = Self::Many(Box::new(IndexMap::from(both)));
            }
            Self::Many(many) => {
                many.insert(id, Rc::clone(outbox));
            }
        }
    }

    /// Removes an outbox, if it is in the set.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        match self {
            Self::One(only, _) if *only == id => *self = Self::None,
            Self::None | Self::One(..) => {}
            Self::Many(many) => {
                many.swap_remove(&id);
                if many.len() == 1
                    && let Some((id, last)) = many.pop()
                {
                    *self = Self::One(id, last);
                } else if many.len() < many.capacity() / 4 {
                    many.shrink_to(many.len() * 2);
                }
            }
        }
    }

    /// Returns the outbox of a connection, if it is in the set.
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Rc<Outbox>> {
        match self {
            Self::One(only, outbox) if *only == id => Some(outbox),
            Self::None | Self::One(..) => None,
            Self::Many(many) => many.get(&id),
        }
    }

    /// Calls `f` with each connection and its outbox.
    pub(super) fn for_each(&self, mut f: impl FnMut(ConnectionId, &Rc<Outbox>)) {
        match self {
            Self::None => {}
            Self::One(id, outbox) => f(*id, outbox),
            Self::Many(many) => many.iter().for_each(|(id, outbox)| f(*id, outbox)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::outbox::{OutboxLimits, OutboxPool};

    proptest! {
        #[test]
        fn subscribers_are_those_added_minus_those_removed(
            steps in prop::collection::vec((any::<bool>(), 0..6_u64), 0..60),
        ) {
            let limits = OutboxLimits { frames: 1, bytes: 1 };
            let pool = OutboxPool::new(limits);
            let (mut subscribers, mut model) = (Subscribers::default(), BTreeMap::new());
            for (add, id) in steps {
                if add {
                    let outbox = model.entry(id).or_insert_with(|| Rc::new(Outbox::new(&pool)));
                    subscribers.insert(id, outbox);
                } else {
                    model.remove(&id);
                    subscribers.remove(id);
                }
                let mut found = Vec::new();
                subscribers.for_each(|_, outbox| found.push(Rc::as_ptr(outbox)));
                found.sort_unstable();
                let mut expected: Vec<_> = model.values().map(Rc::as_ptr).collect();
                expected.sort_unstable();
                prop_assert_eq!(found, expected);
                prop_assert_eq!(subscribers.len(), model.len());
                prop_assert_eq!(subscribers.is_empty(), model.is_empty());
            }
        }
    }
}
