//! What an outbox takes, in which order it gives it away, and what it drops.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    event::tests::draft,
    protocol::{Epoch, Position},
};

const ROOMY: OutboxLimits = OutboxLimits {
    frames: 1000,
    bytes: 1 << 20,
};

fn event(id: &str) -> Rc<Delivery> {
    let position = Position {
        epoch: Epoch::from_bits(1),
        offset: 1,
    };
    let event = draft(id, &["a:1"]).place(position, &Arc::default());
    Rc::new(Delivery::new(Arc::new(event)))
}

fn stamp(item: u64, event: u64) -> Stamp {
    Stamp { item, event }
}

fn frame(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// Writes at most `max` bytes and gives back what was written.
fn write(outbox: &Outbox, max: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = outbox.lend(|slices| {
        slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    });
    bytes.truncate(max);
    outbox.advance(bytes.len());
    bytes
}

#[test]
fn an_event_is_taken_once() {
    let outbox = Outbox::new(ROOMY);
    assert_eq!(outbox.offer(&event("m"), stamp(1, 1)), Offered::Taken);
    assert_eq!(outbox.offer(&event("m"), stamp(1, 1)), Offered::TakenBefore);
    assert_eq!(outbox.offer(&event("n"), stamp(1, 2)), Offered::Taken);
}

#[test]
fn below_its_limits_it_takes_an_item_whole_and_at_one_it_ends() {
    for limits in [
        OutboxLimits { frames: 1, ..ROOMY },
        OutboxLimits { bytes: 1, ..ROOMY },
    ] {
        let outbox = Outbox::new(limits);
        for number in 1..=10 {
            assert_eq!(outbox.offer(&event("m"), stamp(1, number)), Offered::Taken);
        }
        assert_eq!(outbox.offer(&event("m"), stamp(2, 11)), Offered::Overflowed);
        assert_eq!(outbox.ending(), Some(Ending::TooSlow));
        assert_eq!(outbox.offer(&event("m"), stamp(2, 12)), Offered::Ended);
        assert_eq!(outbox.discard(), 10);
        assert!(outbox.is_empty());
    }
}

#[test]
fn replies_have_half_of_the_outbox_and_at_least_one_frame() {
    for (frames, replies) in [(1, 1), (2, 1), (5, 3), (10, 5)] {
        let outbox = Outbox::new(OutboxLimits { frames, ..ROOMY });
        for _ in 0..replies {
            assert!(outbox.has_room_for_replies());
            outbox.push_reply(frame("reply"));
        }
        assert!(!outbox.has_room_for_replies());
    }
    let outbox = Outbox::new(OutboxLimits { bytes: 9, ..ROOMY });
    outbox.push_reply(frame("four"));
    assert!(outbox.has_room_for_replies());
    outbox.push_reply(frame("5"));
    assert!(!outbox.has_room_for_replies());
}

#[test]
fn a_pong_goes_ahead_of_what_is_queued_but_never_into_a_begun_frame() {
    let outbox = Outbox::new(ROOMY);
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
fn nothing_is_queued_after_a_close_frame() {
    let outbox = Outbox::new(ROOMY);
    outbox.push_close(frame("close"));
    outbox.push_reply(frame("reply"));
    outbox.set_pong(frame("pong"));
    outbox.push_close(frame("close again"));
    assert_eq!(outbox.offer(&event("m"), stamp(1, 1)), Offered::Ended);
    assert_eq!(write(&outbox, 100), b"close");
    assert!(outbox.is_empty());
}

#[test]
fn what_is_begun_survives_a_discard_and_is_counted_when_abandoned() {
    let outbox = Outbox::new(ROOMY);
    let whole = event("m");
    assert_eq!(outbox.offer(&whole, stamp(1, 1)), Offered::Taken);
    assert_eq!(outbox.offer(&event("n"), stamp(1, 2)), Offered::Taken);
    let begun = write(&outbox, 3);
    assert_eq!(outbox.discard(), 1);
    let rest = outbox.lend(|slices| slices.concat_bytes());
    assert_eq!([begun, rest].concat(), whole.event().frame());
    assert_eq!(outbox.abandon(), 1);
    assert!(outbox.is_empty());
}

#[test]
fn an_empty_outbox_holds_no_memory_after_a_burst() {
    let outbox = Outbox::new(ROOMY);
    assert_eq!(outbox.state.borrow().queue.capacity(), 0);
    for number in 1..=500 {
        outbox.offer(&event("m"), stamp(number, number));
    }
    while !outbox.is_empty() {
        write(&outbox, usize::MAX);
    }
    assert_eq!(outbox.state.borrow().queue.capacity(), 0);
    assert_eq!(outbox.state.borrow().bytes, 0);
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
    /// Whatever the pieces in which the kernel takes them, frames leave
    /// whole, and those that are no pongs in the order in which they came.
    #[test]
    fn frames_never_interleave(
        steps in prop::collection::vec((0..3_u8, 1..40_usize), 1..200),
    ) {
        let outbox = Outbox::new(ROOMY);
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
fn numbered_frame(number: u8, len: usize) -> Bytes {
    let mut frame = vec![number, u8::try_from(len).unwrap()];
    frame.resize(len + 2, number);
    frame.into()
}
