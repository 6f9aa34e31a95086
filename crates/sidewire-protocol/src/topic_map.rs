//! A map for so many topics that one table would stop its thread whenever it grows.

use std::{collections::hash_map::Entry, mem, slice};

use crate::{Topic, topic::TopicMap};

/// Number of topics up to which the map is one table, which is full then. To grow, a table moves
/// all its entries at once, which takes 0.3 ms for this many and 30 ms for a million.
const UNDIVIDED_MAX: usize = 7_168;

/// Number of tables of a divided map. With four million topics each has 16,000.
const TABLES: usize = 256;

/// A map by topic, for any number of topics. It is one table as long as it is small. Beyond that
/// it is divided into 256 tables, each of which grows by itself.
#[derive(Debug)]
pub struct LargeTopicMap<V>(Tables<V>);

#[derive(Debug)]
enum Tables<V> {
    One(TopicMap<V>),
    Divided(Box<DividedMap<V>>),
}

#[derive(Debug)]
struct DividedMap<V> {
    tables: [TopicMap<V>; TABLES],
    len: usize,
}

impl<V> Default for LargeTopicMap<V> {
    fn default() -> Self {
        Self(Tables::One(TopicMap::default()))
    }
}

impl<V> LargeTopicMap<V> {
    /// Returns the number of topics.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Tables::One(table) => table.len(),
            Tables::Divided(map) => map.len,
        }
    }

    /// Returns true if the map contains no topic.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the value of the topic.
    #[must_use]
    pub fn get(&self, topic: &Topic) -> Option<&V> {
        match &self.0 {
            Tables::One(table) => table.get(topic),
            Tables::Divided(map) => map.table(topic).get(topic),
        }
    }

    /// Returns the value of the topic.
    pub fn get_mut(&mut self, topic: &Topic) -> Option<&mut V> {
        match &mut self.0 {
            Tables::One(table) => table.get_mut(topic),
            Tables::Divided(map) => map.table_mut(topic).get_mut(topic),
        }
    }

    /// Returns the topics, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &Topic> {
        let tables = match &self.0 {
            Tables::One(table) => slice::from_ref(table),
            Tables::Divided(map) => map.tables.as_slice(),
        };
        tables.iter().flat_map(TopicMap::keys)
    }

    /// Returns the value of the topic. Inserts the default value if the map does not contain the
    /// topic.
    pub fn get_or_default(&mut self, topic: &Topic) -> &mut V
    where
        V: Default,
    {
        if let Tables::One(table) = &mut self.0
            && table.len() >= UNDIVIDED_MAX
            && !table.contains_key(topic)
        {
            self.0 = Tables::Divided(Box::new(DividedMap::new(mem::take(table))));
        }
        match &mut self.0 {
            Tables::One(table) => table.entry(topic.clone()).or_default(),
            Tables::Divided(map) => map.get_or_default(topic),
        }
    }

    /// Removes the topic, and returns its value.
    pub fn remove(&mut self, topic: &Topic) -> Option<V> {
        match &mut self.0 {
            Tables::One(table) => table.remove(topic),
            Tables::Divided(map) => {
                let removed = map.table_mut(topic).remove(topic)?;
                map.len -= 1;
                if map.len == 0 {
                    *self = Self::default();
                }
                Some(removed)
            }
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "there is a table for each value of a byte"
)]
impl<V> DividedMap<V> {
    fn new(table: TopicMap<V>) -> Self {
        let mut divided = Self {
            tables: std::array::from_fn(|_| TopicMap::default()),
            len: table.len(),
        };
        for (topic, value) in table {
            divided.table_mut(&topic).insert(topic, value);
        }
        divided
    }

    fn get_or_default(&mut self, topic: &Topic) -> &mut V
    where
        V: Default,
    {
        match self.tables[table_of(topic)].entry(topic.clone()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.len += 1;
                entry.insert(V::default())
            }
        }
    }

    fn table(&self, topic: &Topic) -> &TopicMap<V> {
        &self.tables[table_of(topic)]
    }

    fn table_mut(&mut self, topic: &Topic) -> &mut TopicMap<V> {
        &mut self.tables[table_of(topic)]
    }
}

/// Returns the number of the topic's table. Takes bits of the hash from which a table does not
/// choose the place of an entry: it uses the lowest bits and the seven highest.
fn table_of(topic: &Topic) -> usize {
    let [_, byte, ..] = topic.carried_hash().to_be_bytes();
    byte.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: usize) -> Topic {
        Topic::parse(&format!("a:{number}")).unwrap()
    }

    fn tables<V>(map: &LargeTopicMap<V>) -> &[TopicMap<V>] {
        match &map.0 {
            Tables::One(table) => slice::from_ref(table),
            Tables::Divided(map) => &map.tables,
        }
    }

    #[test]
    fn growing_never_moves_more_entries_than_a_small_table_has() {
        let mut map = LargeTopicMap::<usize>::default();
        let mut capacities = vec![0];
        for number in 0..300_000 {
            *map.get_or_default(&topic(number)) = number;
            if number % 1_000 == 0 || number == UNDIVIDED_MAX {
                let now: Vec<_> = tables(&map).iter().map(TopicMap::capacity).collect();
                for (at, capacity) in now.iter().enumerate() {
                    let before = capacities.get(at).copied().unwrap_or(0);
                    assert!(before <= UNDIVIDED_MAX || before == *capacity);
                }
                capacities = now;
            }
        }
        let longest = tables(&map).iter().map(TopicMap::len).max().unwrap();
        assert!(longest < 2 * 300_000 / TABLES, "{longest}");
        assert!((0..300_000).all(|number| map.get(&topic(number)) == Some(&number)));
    }

    #[test]
    fn a_divided_map_that_becomes_empty_is_small_again() {
        let mut map = LargeTopicMap::<()>::default();
        for number in 0..=UNDIVIDED_MAX {
            map.get_or_default(&topic(number));
        }
        assert_eq!(tables(&map).len(), TABLES);
        for number in 0..=UNDIVIDED_MAX {
            assert!(!map.is_empty());
            assert_eq!(map.remove(&topic(number)), Some(()));
        }
        assert!(map.is_empty());
        assert_eq!(tables(&map).len(), 1);
    }

    proptest! {
        #[test]
        fn it_equals_a_map_of_one_table(
            before in prop::sample::select(vec![0, UNDIVIDED_MAX - 3]),
            steps in prop::collection::vec((0..12_usize, 0..3_u8), 0..40),
        ) {
            let (mut map, mut model) = (LargeTopicMap::default(), TopicMap::default());
            for number in 100..100 + before {
                map.get_or_default(&topic(number));
                model.insert(topic(number), 0);
            }
            for (number, step) in steps {
                let topic = topic(number);
                match step {
                    0 => prop_assert_eq!(map.remove(&topic), model.remove(&topic)),
                    1 => prop_assert_eq!(map.get_mut(&topic), model.get_mut(&topic)),
                    _ => {
                        *map.get_or_default(&topic) += number;
                        *model.entry(topic).or_default() += number;
                    }
                }
                prop_assert_eq!(map.len(), model.len());
            }
            for (topic, value) in &model {
                prop_assert_eq!(map.get(topic), Some(value));
            }
            let stored: usize = tables(&map).iter().map(TopicMap::len).sum();
            prop_assert_eq!(stored, map.len());
        }
    }
}
