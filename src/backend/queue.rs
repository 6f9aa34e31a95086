//! A bounded queue that is fair among tenants, as a pure data structure: tenants are served one
//! after another, and where there is no room, the tenant with most in the queue makes some.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// The queue. Of each tenant, the items leave it in order.
#[derive(Debug)]
pub(super) struct FairQueue<K, T> {
    tenants: HashMap<K, VecDeque<T>>,
    /// The tenants with items, in the order in which they are served next.
    order: VecDeque<K>,
    len: usize,
    max: usize,
}

impl<K: Clone + Eq + Hash, T> FairQueue<K, T> {
    /// Creates an empty queue for at most `max` items.
    pub(super) fn new(max: usize) -> Self {
        Self {
            tenants: HashMap::new(),
            order: VecDeque::new(),
            len: 0,
            max,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn has_room(&self) -> bool {
        self.len < self.max
    }

    /// Adds an item. If there is no room, returns the newest item of the tenant that has most,
    /// which is removed for it.
    ///
    /// # Errors
    ///
    /// Returns the item itself if no other tenant has more.
    pub(super) fn push(&mut self, tenant: &K, item: T) -> Result<Option<T>, T> {
        let mut evicted = None;
        if !self.has_room() {
            let own = self.tenants.get(tenant).map_or(0, VecDeque::len);
            let longest = self.tenants.iter().max_by_key(|(_, items)| items.len());
            let longest = longest.filter(|(_, items)| items.len() > own + 1);
            let Some(longest) = longest.map(|(tenant, _)| tenant.clone()) else {
                return Err(item);
            };
            evicted = self.tenants.get_mut(&longest).and_then(VecDeque::pop_back);
            self.len -= usize::from(evicted.is_some());
        }
        let items = self.tenants.entry(tenant.clone()).or_default();
        if items.is_empty() {
            self.order.push_back(tenant.clone());
        }
        items.push_back(item);
        self.len += 1;
        Ok(evicted)
    }

    /// Removes the item that is served next.
    pub(super) fn pop(&mut self) -> Option<T> {
        let tenant = self.order.pop_front()?;
        let items = self.tenants.get_mut(&tenant)?;
        let item = items.pop_front()?;
        self.len -= 1;
        if items.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.order.push_back(tenant);
        }
        Some(item)
    }

    /// Returns the first item of each tenant.
    pub(super) fn first_items(&self) -> impl Iterator<Item = &T> {
        self.tenants.values().filter_map(VecDeque::front)
    }

    /// Removes and returns the items of which `is_done` is true.
    pub(super) fn remove_where(&mut self, is_done: impl Fn(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for items in self.tenants.values_mut() {
            for item in std::mem::take(items) {
                match is_done(&item) {
                    true => removed.push(item),
                    false => items.push_back(item),
                }
            }
        }
        self.len -= removed.len();
        self.tenants.retain(|_, items| !items.is_empty());
        let tenants = &self.tenants;
        self.order.retain(|tenant| tenants.contains_key(tenant));
        removed
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drained(queue: &mut FairQueue<u8, u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn tenants_are_served_one_after_another() {
        let mut queue = FairQueue::new(100);
        for item in [10, 11, 12, 13] {
            assert_eq!(queue.push(&1, item), Ok(None));
        }
        assert_eq!(queue.pop(), Some(10));
        for (tenant, item) in [(2, 20), (3, 30), (2, 21)] {
            assert_eq!(queue.push(&tenant, item), Ok(None));
        }
        assert_eq!(drained(&mut queue), [11, 20, 30, 12, 21, 13]);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn where_there_is_no_room_the_tenant_with_most_loses_its_newest() {
        let mut queue = FairQueue::new(4);
        for item in [10, 11, 12, 13] {
            assert_eq!(queue.push(&1, item), Ok(None));
        }
        assert_eq!(queue.push(&1, 14), Err(14));
        assert_eq!(queue.push(&2, 20), Ok(Some(13)));
        assert_eq!(queue.push(&2, 21), Ok(Some(12)));
        assert_eq!(queue.push(&2, 22), Err(22), "both have two");
        assert!(matches!(queue.push(&3, 30), Ok(Some(11 | 21))));
        assert_eq!(queue.len(), 4);
    }

    #[test]
    fn removed_items_leave_the_others_in_order() {
        let mut queue = FairQueue::new(100);
        for (tenant, item) in [(1, 10), (1, 11), (2, 20), (3, 31), (3, 30)] {
            assert_eq!(queue.push(&tenant, item), Ok(None));
        }
        let mut removed = queue.remove_where(|item| item % 10 == 0);
        removed.sort_unstable();
        assert_eq!(removed, [10, 20, 30]);
        assert_eq!(queue.len(), 2);
        assert_eq!(drained(&mut queue), [11, 31]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_a_tenant_keeps_its_order(
            pushes in prop::collection::vec((0u8..4, any::<bool>()), 0..200),
        ) {
            let mut queue = FairQueue::new(10);
            let (mut gone, mut last) = (0, HashMap::new());
            for (number, (tenant, pops)) in pushes.iter().enumerate() {
                gone += usize::from(queue.push(tenant, (*tenant, number)) != Ok(None));
                prop_assert!(queue.len() <= 10);
                if *pops && let Some((tenant, number)) = queue.pop() {
                    gone += 1;
                    let before = last.insert(tenant, number);
                    prop_assert!(before.is_none_or(|before| before < number));
                }
                prop_assert_eq!(queue.first_items().count(), queue.order.len());
            }
            prop_assert_eq!(queue.len() + gone, pushes.len());
        }
    }
}
