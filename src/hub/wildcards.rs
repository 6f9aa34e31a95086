//! Wildcards `kind:*`, each with a value, found by the kind that an event names.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    collections::{BTreeMap, btree_map},
};

use sidewire_protocol::Topic;

/// A wildcard, ordered by its kind.
#[derive(Debug, Clone)]
struct Wildcard(Topic);

impl Wildcard {
    fn kind(&self) -> &str {
        // Faster than to search for the first colon.
        let text = self.0.as_str();
        text.strip_suffix(":*").unwrap_or(text)
    }
}

/// Values by wildcard. Takes the room of a pointer as long as it is empty.
#[derive(Debug)]
pub(super) struct WildcardMap<V>(Option<Box<KindTree<V>>>);

/// A tree and no hash map, which would move all its entries at once when it grows.
#[derive(Debug)]
struct KindTree<V>(BTreeMap<Wildcard, V>);

/// Returns true if the topic stands for all topics of its kind.
pub(super) fn covers_its_kind(topic: &Topic) -> bool {
    topic.is_wildcard() && !topic.is_everyone()
}

impl<V> WildcardMap<V> {
    /// Returns the number of wildcards.
    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |tree| tree.0.len())
    }

    /// Returns true if there is no wildcard.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the value of the wildcard of this kind.
    pub(super) fn get(&self, kind: &str) -> Option<&V> {
        self.0.as_ref()?.0.get(kind)
    }

    /// Returns the value of the wildcard of this kind.
    pub(super) fn get_mut(&mut self, kind: &str) -> Option<&mut V> {
        self.0.as_mut()?.0.get_mut(kind)
    }

    /// Returns the value of the wildcard, and inserts the default value if there is none.
    pub(super) fn get_or_default(&mut self, wildcard: &Topic) -> &mut V
    where
        V: Default,
    {
        let tree = self.0.get_or_insert_with(Default::default);
        tree.0.entry(Wildcard(wildcard.clone())).or_default()
    }

    /// Removes the wildcard of this kind, and returns its value.
    pub(super) fn remove(&mut self, kind: &str) -> Option<V> {
        let tree = self.0.as_mut()?;
        let removed = tree.0.remove(kind);
        if tree.0.is_empty() {
            self.0 = None;
        }
        removed
    }

    /// Returns the values.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().flat_map(|tree| tree.0.values_mut())
    }

    /// Returns the wildcards.
    pub(super) fn topics(&self) -> impl Iterator<Item = &Topic> {
        let tree = self.0.as_ref();
        tree.into_iter()
            .flat_map(|tree| tree.0.keys().map(|wildcard| &wildcard.0))
    }

    /// Returns the wildcards, and drops their values.
    pub(super) fn into_topics(self) -> WildcardTopics<V> {
        let tree = self.0.map(|tree| tree.0).unwrap_or_default();
        WildcardTopics(tree.into_iter())
    }
}

/// The wildcards of a map that was given up.
#[derive(Debug)]
pub(super) struct WildcardTopics<V>(btree_map::IntoIter<Wildcard, V>);

impl<V> Iterator for WildcardTopics<V> {
    type Item = Topic;

    fn next(&mut self) -> Option<Topic> {
        self.0.next().map(|(wildcard, _)| wildcard.0)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<V> ExactSizeIterator for WildcardTopics<V> {}

impl<V> Default for WildcardMap<V> {
    fn default() -> Self {
        Self(None)
    }
}

impl<V> Default for KindTree<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl Borrow<str> for Wildcard {
    fn borrow(&self) -> &str {
        self.kind()
    }
}

impl PartialEq for Wildcard {
    fn eq(&self, other: &Self) -> bool {
        self.kind() == other.kind()
    }
}

impl Eq for Wildcard {}

impl PartialOrd for Wildcard {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wildcard {
    fn cmp(&self, other: &Self) -> Ordering {
        self.kind().cmp(other.kind())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_map_of_wildcards_equals_a_map_of_kinds(
            steps in prop::collection::vec((0..5_usize, 0..3_u8), 0..60),
        ) {
            let (mut map, mut model) = (WildcardMap::<u64>::default(), BTreeMap::new());
            for (number, step) in steps {
                let kind = ["a", "aa", "a_", "b", "a1"][number];
                let wildcard = Topic::new(kind, "*").unwrap();
                match step {
                    0 => prop_assert_eq!(map.remove(kind), model.remove(kind)),
                    1 => prop_assert_eq!(map.get_mut(kind), model.get_mut(kind)),
                    _ => {
                        *map.get_or_default(&wildcard) += 1;
                        *model.entry(kind).or_default() += 1;
                    }
                }
                prop_assert_eq!(map.get(kind), model.get(kind));
                prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            }
            let mut kinds: Vec<_> = map.topics().map(|topic| topic.kind().to_owned()).collect();
            kinds.sort_unstable();
            prop_assert!(kinds.iter().eq(model.keys()));
            prop_assert!(map.into_topics().all(|topic| topic.is_wildcard()));
        }
    }

    #[test]
    fn only_wildcards_cover_their_kind() {
        for (text, covers) in [
            ("a:*", true),
            ("a:1", false),
            ("a:b:*", false),
            ("tenant:*", false),
        ] {
            assert_eq!(
                covers_its_kind(&Topic::parse(text).unwrap()),
                covers,
                "{text}"
            );
        }
    }
}
