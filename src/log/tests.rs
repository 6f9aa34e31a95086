//! Tests of the window, and of reading from it.

use proptest::prelude::*;

use super::*;
use crate::event::tests::draft;

const EPOCH: Epoch = Epoch::from_bits(3);

fn log(window: LogWindow) -> Log {
    Log::new(at(0), window, LogAccounts::default())
}

const WIDE: LogWindow = LogWindow {
    events: 100,
    bytes: 1 << 20,
    age: Duration::from_secs(60),
};

fn at(offset: u64) -> Position {
    Position {
        epoch: EPOCH,
        offset,
    }
}

fn offsets_after(log: &Log, offset: u64) -> Result<Vec<u64>, ReplayGap> {
    log.read_after(at(offset))
        .map(|events| events.map(|event| event.position().offset).collect())
}

fn append(log: &mut Log, count: usize, now: Instant) {
    for _ in 0..count {
        log.append(draft("m", &["a:1"]), now, &mut EvictedEvents::new());
    }
}

#[test]
fn offsets_start_at_1_and_grow_by_1() {
    let (mut log, now) = (log(WIDE), Instant::now());
    assert_eq!((log.head(), log.tail()), (at(0), at(0)));
    append(&mut log, 3, now);
    assert_eq!(log.head(), at(3));
    assert_eq!(offsets_after(&log, 0), Ok(vec![1, 2, 3]));
    assert_eq!(offsets_after(&log, 2), Ok(vec![3]));
    assert_eq!(offsets_after(&log, 3), Ok(vec![]));
}

#[test]
fn a_read_that_would_be_incomplete_is_refused_with_the_reason() {
    let now = Instant::now();
    let mut log = log(LogWindow { events: 2, ..WIDE });
    append(&mut log, 5, now);
    assert_eq!(offsets_after(&log, 2), Err(ReplayGap::Evicted));
    assert_eq!(offsets_after(&log, 3), Ok(vec![4, 5]));
    assert_eq!(offsets_after(&log, 6), Err(ReplayGap::Future));
    let elsewhere = Position {
        epoch: Epoch::from_bits(4),
        offset: 4,
    };
    assert_eq!(
        log.read_after(elsewhere).err(),
        Some(ReplayGap::UnknownEpoch)
    );
}

#[test]
fn an_expired_event_is_not_in_the_window_even_if_it_is_not_yet_evicted() {
    let (mut log, began) = (log(WIDE), Instant::now());
    append(&mut log, 2, began);
    append(&mut log, 1, began + WIDE.age / 2);
    let mut evicted = EvictedEvents::new();
    log.append(draft("m", &["a:2"]), began + WIDE.age / 2, &mut evicted);
    let later = began + WIDE.age;
    assert_eq!(log.tail_at(later), at(2));
    assert_eq!(log.has_all_after(at(1), later), Err(ReplayGap::Evicted));
    assert_eq!(log.has_all_after(at(2), later), Ok(()));
    let last = later + WIDE.age / 2;
    assert_eq!(log.tail_at(last), at(4));
    assert_eq!(log.has_all_after(at(4), last), Ok(()));
    // Everything is still in the log.
    assert_eq!(offsets_after(&log, 0), Ok(vec![1, 2, 3, 4]));
    assert!(evicted.is_empty());
}

#[test]
fn events_are_evicted_when_they_are_too_many_too_large_or_too_old() {
    let now = Instant::now();
    let cost = draft("m", &["a:1"])
        .into_event(at(1), &Arc::default(), now)
        .memory_bytes();
    for window in [
        LogWindow { events: 4, ..WIDE },
        LogWindow {
            bytes: cost * 4 + cost / 2,
            ..WIDE
        },
    ] {
        let mut log = log(window);
        append(&mut log, 10, now);
        assert_eq!(offsets_after(&log, 6), Ok(vec![7, 8, 9, 10]));
        assert_eq!(log.tail(), at(6));
    }

    let mut log = log(WIDE);
    append(&mut log, 2, now);
    append(&mut log, 1, now + Duration::from_secs(59));
    log.evict(now + Duration::from_secs(60));
    assert_eq!(offsets_after(&log, 2), Ok(vec![3]));
    assert_eq!(offsets_after(&log, 1), Err(ReplayGap::Evicted));
    log.evict(now + WIDE.age * 2);
    assert!(log.is_empty());
    assert_eq!((log.head(), log.tail()), (at(3), at(3)));
}

#[test]
fn a_log_that_is_shrunk_loses_its_oldest_events() {
    let (mut log, now) = (log(WIDE), Instant::now());
    append(&mut log, 10, now);
    let cost = log.bytes() / 10;
    assert_eq!(log.shrink_to(cost * 4 + cost / 2).len(), 6);
    assert_eq!(offsets_after(&log, 6), Ok(vec![7, 8, 9, 10]));
    assert_eq!(log.accounts.logs.get(), 4 * cost as u64);
    assert_eq!(log.shrink_to(cost * 4).len(), 0);
    let logs = Arc::clone(&log.accounts.logs);
    drop(log);
    assert_eq!(logs.get(), 0);
}

#[test]
fn a_log_that_keeps_no_events_assigns_positions_and_refuses_every_read() {
    let mut log = log(LogWindow { events: 0, ..WIDE });
    append(&mut log, 2, Instant::now());
    assert_eq!((log.head(), log.is_empty()), (at(2), true));
    assert_eq!(offsets_after(&log, 2), Err(ReplayGap::Disabled));
}

#[test]
fn a_log_continues_after_its_previous_head() {
    let mut log = Log::new(at(7), WIDE, LogAccounts::default());
    assert_eq!(offsets_after(&log, 7), Ok(vec![]));
    assert_eq!(offsets_after(&log, 6), Err(ReplayGap::Evicted));
    append(&mut log, 1, Instant::now());
    assert_eq!(offsets_after(&log, 7), Ok(vec![8]));
}

#[test]
fn an_event_larger_than_the_window_has_a_position_and_is_evicted_at_once() {
    let mut log = log(LogWindow { bytes: 1, ..WIDE });
    let event = log.append(
        draft("m", &["a:1"]),
        Instant::now(),
        &mut EvictedEvents::new(),
    );
    assert_eq!(event.position(), at(1));
    assert!(log.is_empty());
    assert_eq!(offsets_after(&log, 0), Err(ReplayGap::Evicted));
}

proptest! {
    #[test]
    fn bounds_hold_after_every_append(
        events in 1..20_usize,
        bytes in 0..3000_usize,
        steps in prop::collection::vec(0..20_u64, 1..100),
    ) {
        let window = LogWindow { events, bytes, age: Duration::from_secs(30) };
        let mut log = log(window);
        let mut now = Instant::now();
        for step in steps {
            now += Duration::from_secs(step);
            append(&mut log, 1, now);
            prop_assert!(log.ring.len() <= events);
            prop_assert!(log.bytes <= bytes);
            let sum: usize = log.ring.iter().map(|event| event.memory_bytes()).sum();
            prop_assert_eq!(log.bytes, sum);
            prop_assert_eq!(log.accounts.logs.get(), sum as u64);
            prop_assert!(log.ring.iter().all(|event| now - event.placed_at() < window.age));
        }
    }
}
