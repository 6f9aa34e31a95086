//! Tests of which ids are remembered, for how long, and in how much memory.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LIMITS: MessageIdLimits = MessageIdLimits {
    age: Duration::from_secs(300),
    count: 100,
    bytes: 1 << 20,
};

fn fingerprint(id: u64, body: u8) -> Fingerprint {
    let mut bytes = [0; 16];
    // Spread over all bits, as a hash would be.
    let spread = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..8].copy_from_slice(&spread.to_le_bytes());
    Fingerprint {
        id: bytes,
        body: [body; 16],
    }
}

fn ids(limits: MessageIdLimits) -> (MessageIds, Arc<MessageIdBudget>) {
    let budget = Arc::new(MessageIdBudget::new(limits));
    (MessageIds::new(Arc::clone(&budget)), budget)
}

impl MessageIds {
    /// Returns the memory that the queue and the table actually take.
    fn allocated_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<RememberedId>() + self.numbers.allocation_size()
    }
}

#[test]
fn an_id_is_known_with_its_offset_and_not_with_another_body() {
    let ((mut ids, _), now) = (ids(LIMITS), Instant::now());
    assert_eq!(ids.find(&fingerprint(1, 1), now), None);
    ids.remember(fingerprint(1, 1), 7, now);
    assert_eq!(
        ids.find(&fingerprint(1, 1), now),
        Some(MessageIdMatch::Duplicate(7))
    );
    assert_eq!(
        ids.find(&fingerprint(1, 2), now),
        Some(MessageIdMatch::Conflict)
    );
    assert_eq!(ids.find(&fingerprint(2, 1), now), None);
}

#[test]
fn an_expired_id_is_forgotten_and_can_be_used_again() {
    let ((mut ids, budget), now) = (ids(LIMITS), Instant::now());
    ids.remember(fingerprint(1, 1), 7, now);
    let last_moment = now + LIMITS.age - Duration::from_nanos(1);
    assert!(ids.find(&fingerprint(1, 1), last_moment).is_some());
    let later = now + LIMITS.age;
    assert_eq!(ids.find(&fingerprint(1, 1), later), None);
    ids.remember(fingerprint(1, 2), 8, later);
    assert_eq!(
        ids.find(&fingerprint(1, 2), later),
        Some(MessageIdMatch::Duplicate(8))
    );
    assert!(ids.forget_expired(later, 10));
    assert_eq!((ids.len(), budget.bytes()), (1, MESSAGE_ID_BYTES));
    assert!(ids.find(&fingerprint(1, 2), later).is_some());
}

#[test]
fn expired_ids_are_forgotten_in_slices() {
    let ((mut ids, _), now) = (ids(LIMITS), Instant::now());
    for id in 0..25 {
        ids.remember(fingerprint(id, 1), id, now);
    }
    let later = now + LIMITS.age;
    assert!(!ids.forget_expired(later, 10));
    assert_eq!(ids.len(), 15);
    assert!(!ids.forget_expired(later, 10));
    assert!(ids.forget_expired(later, 10));
    assert!(ids.is_empty());
}

#[test]
fn a_tenant_over_its_count_forgets_its_oldest_ids() {
    let ((mut ids, budget), now) = (ids(LIMITS), Instant::now());
    for id in 0..150 {
        ids.remember(fingerprint(id, 1), id, now);
    }
    assert_eq!(ids.len(), LIMITS.count);
    assert_eq!(ids.find(&fingerprint(49, 1), now), None);
    assert!(ids.find(&fingerprint(50, 1), now).is_some());
    drop(ids);
    assert_eq!(budget.bytes(), 0);
}

#[test]
fn over_the_budget_a_tenant_forgets_the_ids_above_its_share() {
    let limits = MessageIdLimits {
        count: 1000,
        bytes: 100 * MESSAGE_ID_BYTES,
        ..LIMITS
    };
    let ((mut greedy, budget), now) = (ids(limits), Instant::now());
    for id in 0..500 {
        greedy.remember(fingerprint(id, 1), id, now);
    }
    assert_eq!(greedy.len(), 100);
    // A small tenant forgets none of its own ids: another has more than its share.
    let mut small = MessageIds::new(Arc::clone(&budget));
    small.remember(fingerprint(1, 1), 1, now);
    assert!(budget.is_exceeded());
    assert_eq!(
        (small.len(), budget.excess()),
        (1, 101 - budget.target_count())
    );
    greedy.forget_oldest(budget.excess());
    assert!(!budget.is_exceeded());
    assert_eq!(budget.excess(), 0);
}

#[test]
fn a_million_ids_take_no_more_memory_than_is_accounted() {
    let limits = MessageIdLimits {
        count: 10_000,
        ..LIMITS
    };
    let (mut ids, budget) = ids(limits);
    let (start, mut settled) = (Instant::now(), 0);
    for id in 0..1_000_000_u64 {
        let now = start + Duration::from_millis(id);
        ids.remember(fingerprint(id, 1), id, now);
        if id == 20_000 {
            settled = ids.allocated_bytes();
        }
    }
    assert_eq!(
        ids.len(),
        limits.count.min(budget.limits.bytes / MESSAGE_ID_BYTES)
    );
    assert_eq!(ids.allocated_bytes(), settled);
    assert!(settled <= (ids.len() + 1) * MESSAGE_ID_BYTES, "{settled}");

    let end = start + Duration::from_secs(1_000);
    while !ids.forget_expired(end + LIMITS.age, 1000) {}
    ids.shrink();
    assert_eq!((ids.len(), budget.bytes()), (0, 0));
    assert!(ids.allocated_bytes() < 1000);
}

/// A random operation.
#[derive(Debug, Clone)]
enum Step {
    Post { id: u64, body: u8 },
    Wait(u64),
    Expire(usize),
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..30_u64, 0..2_u8).prop_map(|(id, body)| Step::Post { id, body }),
        2 => (0..100_u64).prop_map(Step::Wait),
        1 => (1..5_usize).prop_map(Step::Expire),
        1 => Just(Step::Shrink),
    ]
}

proptest! {
    #[test]
    fn the_known_ids_match_a_list_of_all_ids(
        steps in prop::collection::vec(step(), 1..300),
        first_number in any::<u32>(),
    ) {
        let limits = MessageIdLimits { count: 10, ..LIMITS };
        let (mut ids, budget) = ids(limits);
        ids.first_number = first_number;
        let mut now = Instant::now();
        // In order: (id, body, offset, since).
        let mut all: Vec<(u64, u8, u64, Instant)> = Vec::new();
        for step in steps {
            match step {
                Step::Wait(secs) => now += Duration::from_secs(secs),
                Step::Expire(most) => { ids.forget_expired(now, most); }
                Step::Shrink => ids.shrink(),
                Step::Post { id, body } => {
                    let recent = &all[all.len().saturating_sub(limits.count)..];
                    let live = recent.iter().filter(|it| now - it.3 < limits.age);
                    let by_id: HashMap<_, _> = live.map(|it| (it.0, it)).collect();
                    let expected = by_id.get(&id).map(|it| {
                        if it.1 == body { MessageIdMatch::Duplicate(it.2) } else { MessageIdMatch::Conflict }
                    });
                    let found = ids.find(&fingerprint(id, body), now);
                    prop_assert_eq!(found, expected);
                    if found.is_none() {
                        let offset = all.len() as u64 + 1;
                        ids.remember(fingerprint(id, body), offset, now);
                        all.push((id, body, offset, now));
                    }
                }
            }
            prop_assert!(ids.len() <= limits.count);
            prop_assert_eq!(ids.numbers.len(), ids.len());
            prop_assert_eq!(budget.bytes(), ids.len() * MESSAGE_ID_BYTES);
        }
    }
}
