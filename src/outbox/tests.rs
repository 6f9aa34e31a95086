//! Tests of what an outbox takes, the order in which it is written, and what is dropped.

use proptest::prelude::*;

use std::{io::IoSlice, sync::Arc};

use sidewire_protocol::{Epoch, Position};
use tokio::time::Instant;

use super::{pool::SPARE_QUEUES_MAX, *};
use crate::event::{Event, JsonCell, tests::draft};

const ROOMY: OutboxLimits = OutboxLimits {
    frames: 1000,
    bytes: 1 << 20,
};

fn event(id: &str) -> Arc<Event> {
    let position = Position {
        epoch: Epoch::from_bits(1),
        offset: 1,
    };
    let event = draft(id, &["a:1"]).into_event(position, &Arc::default(), Instant::now());
    Arc::new(event)
}

fn offer(outbox: &Outbox, event: &Arc<Event>, first: u64, number: u64) -> OfferOutcome {
    outbox.offer(&EventOffer::new(event, &JsonCell::default(), first, number))
}

fn frame(text: &str) -> Box<[u8]> {
    text.as_bytes().into()
}

fn outbox(limits: OutboxLimits) -> Outbox {
    Outbox::new(&OutboxPool::new(limits))
}

const TAKEN_FIRST: OfferOutcome = OfferOutcome::Taken { to_wake: true };
const TAKEN: OfferOutcome = OfferOutcome::Taken { to_wake: false };

/// Writes at most `max` bytes, and returns them.
fn write(outbox: &Outbox, max: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = outbox.with_next_write(|slices| {
        slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    });
    bytes.truncate(max);
    outbox.advance_written(bytes.len());
    bytes
}

#[test]
fn an_event_is_queued_only_once() {
    let outbox = outbox(ROOMY);
    assert_eq!(offer(&outbox, &event("m"), 1, 1), TAKEN_FIRST);
    assert_eq!(offer(&outbox, &event("m"), 1, 1), OfferOutcome::TakenBefore);
    assert_eq!(offer(&outbox, &event("n"), 1, 2), TAKEN);
}

#[test]
fn a_connection_is_woken_once_however_often_it_writes_by_itself_before() {
    let outbox = outbox(ROOMY);
    assert_eq!(offer(&outbox, &event("m"), 1, 1), TAKEN_FIRST);
    write(&outbox, usize::MAX);
    assert_eq!(offer(&outbox, &event("n"), 2, 2), TAKEN);
    outbox.wake();
    assert_eq!(offer(&outbox, &event("o"), 3, 3), TAKEN);
    write(&outbox, usize::MAX);
    assert_eq!(offer(&outbox, &event("p"), 4, 4), TAKEN_FIRST);
}

#[test]
fn an_outbox_takes_a_whole_item_below_its_limits_and_overflows_at_one() {
    for limits in [
        OutboxLimits { frames: 1, ..ROOMY },
        OutboxLimits { bytes: 1, ..ROOMY },
    ] {
        let outbox = outbox(limits);
        for number in 1..=10 {
            let taken = offer(&outbox, &event("m"), 1, number);
            let to_wake = number == 1;
            assert_eq!(taken, OfferOutcome::Taken { to_wake });
        }
        assert_eq!(
            offer(&outbox, &event("m"), 11, 11),
            OfferOutcome::Overflowed
        );
        assert_eq!(outbox.signals().ending(), Some(CloseReason::TooSlow));
        assert_eq!(offer(&outbox, &event("m"), 11, 12), OfferOutcome::Ended);
        assert_eq!(outbox.discard_queued(), 10);
        assert!(outbox.is_empty());
    }
}

#[test]
fn replies_have_half_of_the_outbox_and_at_least_one_frame() {
    for (frames, replies) in [(1, 1), (2, 1), (5, 3), (10, 5)] {
        let outbox = outbox(OutboxLimits { frames, ..ROOMY });
        for _ in 0..replies {
            assert!(outbox.is_half_free());
            outbox.push_reply(frame("reply"));
        }
        assert!(!outbox.is_half_free());
    }
    let outbox = outbox(OutboxLimits { bytes: 9, ..ROOMY });
    outbox.push_reply(frame("four"));
    assert!(outbox.is_half_free());
    outbox.push_reply(frame("5"));
    assert!(!outbox.is_half_free());
}

#[test]
fn a_pong_goes_ahead_of_queued_frames_but_never_into_a_begun_one() {
    let outbox = outbox(ROOMY);
    outbox.push_reply(frame("first"));
    outbox.push_reply(frame("second"));
    assert_eq!(write(&outbox, 2), b"fi");
    outbox.set_pong(frame("old pong"));
    outbox.set_pong(frame("PONG"));
    assert_eq!(write(&outbox, 5), b"rstPO");
    outbox.set_pong(frame("next"));
    assert_eq!(write(&outbox, 100), b"NGnextsecond");
    assert!(outbox.is_empty());
}

#[test]
fn a_write_tells_its_bytes_and_the_age_of_its_oldest_event_that_is_not_replayed() {
    let outbox = outbox(ROOMY);
    let (replayed, first, second) = (event("a"), event("b"), event("c"));
    let frame = OutboundFrame::Event(Arc::clone(&replayed)).into_replayed();
    outbox.push_from_log(frame, false);
    outbox.push_reply(self::frame("reply"));
    offer(&outbox, &first, 1, 1);
    offer(&outbox, &second, 2, 2);
    let lengths = [&replayed, &first, &second].map(|event| event.frame().len());
    let all = lengths.iter().sum::<usize>() + 5;
    let before_last = outbox.advance_written(all - 1);
    assert_eq!(
        before_last,
        WriteProgress {
            frames: 3,
            events: 2,
            live_events: 1,
            oldest_placed_at: Some(first.placed_at()),
            bytes: all as u64 - 1,
        }
    );
    let last = WriteProgress {
        frames: 1,
        events: 1,
        live_events: 1,
        oldest_placed_at: Some(second.placed_at()),
        bytes: 1,
    };
    assert_eq!(outbox.advance_written(1), last);
}

#[test]
fn nothing_is_queued_after_a_close_frame() {
    let outbox = outbox(ROOMY);
    outbox.push_close(frame("close"));
    outbox.push_reply(frame("reply"));
    outbox.set_pong(frame("pong"));
    outbox.push_close(frame("close again"));
    assert_eq!(offer(&outbox, &event("m"), 1, 1), OfferOutcome::Ended);
    assert_eq!(write(&outbox, 100), b"close");
    assert!(outbox.is_empty());
}

#[test]
fn a_begun_frame_survives_a_discard_and_is_counted_when_abandoned() {
    let outbox = outbox(ROOMY);
    let whole = event("m");
    assert_eq!(offer(&outbox, &whole, 1, 1), TAKEN_FIRST);
    assert_eq!(offer(&outbox, &event("n"), 1, 2), TAKEN);
    let begun = write(&outbox, 3);
    assert_eq!(outbox.discard_queued(), 1);
    let rest = outbox.with_next_write(|slices| slices.concat_bytes());
    assert_eq!([begun, rest].concat(), whole.frame());
    assert_eq!(outbox.discard_all(), 1);
    assert!(outbox.is_empty());
}

#[test]
fn an_empty_outbox_holds_no_memory_and_another_reuses_its_buffer() {
    let pool = OutboxPool::new(ROOMY);
    let (first, second) = (Outbox::new(&pool), Outbox::new(&pool));
    assert_eq!(first.state.borrow().queue.capacity(), 0);
    offer(&first, &event("m"), 1, 1);
    write(&first, usize::MAX);
    assert_eq!(first.state.borrow().queue.capacity(), 0);
    assert_eq!(pool.spare.borrow().len(), 1);
    offer(&second, &event("m"), 2, 2);
    assert_eq!(pool.spare.borrow().len(), 0);
    drop(second);
    assert_eq!(pool.spare.borrow().len(), 1);
}

#[test]
fn after_a_burst_the_pool_keeps_no_more_than_its_bound() {
    let pool = OutboxPool::new(ROOMY);
    let outboxes: Vec<_> = (0..=SPARE_QUEUES_MAX).map(|_| Outbox::new(&pool)).collect();
    let event = event("m");
    for (number, outbox) in (1..).zip(&outboxes) {
        offer(outbox, &event, number, number);
    }
    let long = Outbox::new(&pool);
    for number in 1..=500 {
        offer(&long, &event, number, number);
    }
    while !long.is_empty() {
        write(&long, usize::MAX);
    }
    assert_eq!(pool.spare.borrow().len(), 0);
    assert_eq!(long.state.borrow().bytes, 0);
    drop(outboxes);
    assert_eq!(pool.spare.borrow().len(), SPARE_QUEUES_MAX);
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Vec<u8>;
}

impl ConcatBytes for [IoSlice<'_>] {
    fn concat_bytes(&self) -> Vec<u8> {
        self.iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }
}

proptest! {
    /// However the kernel splits the writes, frames are written whole, and all but pongs in the
    /// order in which they were queued.
    #[test]
    fn frames_never_interleave(
        steps in prop::collection::vec((0..3_u8, 1..40_usize), 1..200),
    ) {
        let outbox = outbox(ROOMY);
        let (mut written, mut queued, mut replies) = (Vec::new(), 0_u8, Vec::new());
        for (action, len) in steps {
            match action {
                0 => {
                    queued = queued.wrapping_add(1);
                    replies.push((queued, len));
                    outbox.push_reply(numbered_frame(queued, len));
                }
                1 => outbox.set_pong(numbered_frame(0xff, len)),
                _ => written.extend(write(&outbox, len)),
            }
        }
        while !outbox.is_empty() {
            written.extend(write(&outbox, 7));
        }
        let mut rest = &written[..];
        let mut seen = Vec::new();
        while let [number, len, ..] = *rest {
            let frame = &rest[..usize::from(len) + 2];
            prop_assert!(frame[2..].iter().all(|byte| *byte == number));
            if number != 0xff {
                seen.push((number, usize::from(len)));
            }
            rest = &rest[frame.len()..];
        }
        prop_assert_eq!(seen, replies);
    }
}

/// A number, a length, and the number that many times.
fn numbered_frame(number: u8, len: usize) -> Box<[u8]> {
    let mut frame = vec![number, u8::try_from(len).unwrap()];
    frame.resize(len + 2, number);
    frame.into()
}

#[test]
fn changed_limits_apply_to_existing_outboxes() {
    let pool = OutboxPool::new(ROOMY);
    let outbox = Outbox::new(&pool);
    assert_eq!(offer(&outbox, &event("m"), 1, 1), TAKEN_FIRST);
    pool.set_limits(OutboxLimits {
        frames: 1,
        bytes: 1 << 20,
    });
    assert!(!outbox.is_half_free());
    assert_eq!(offer(&outbox, &event("n"), 2, 2), OfferOutcome::Overflowed);
    assert_eq!(outbox.signals().ending(), Some(CloseReason::TooSlow));
}
