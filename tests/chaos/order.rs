//! Checks the protocol's promises about the order on one connection, as visible on the
//! wire. Knows nothing about clients.

use std::collections::HashSet;

use sidewire_client::{ControlMessage, Envelope};
use sidewire_protocol::wire::{Position, SubscriptionConfirmed};

/// State of one connection: what it has received so far.
#[derive(Debug, Default)]
pub(crate) struct Order {
    epoch: Option<String>,
    /// Every further live event must have a greater offset.
    last: u64,
    seen: HashSet<u64>,
    replay: Replay,
}

/// The rest of a replay, and its bounds.
#[derive(Debug, Default)]
struct Replay {
    left: u64,
    last: u64,
    up_to: u64,
}

impl Order {
    /// Checks the next envelope. Returns an error that describes a violation.
    pub(crate) fn take(&mut self, envelope: &Envelope) -> Result<(), String> {
        match (&envelope.control, &envelope.position) {
            (None, Some(position)) => self.event(position),
            (None, None) => Err("an event without a position".to_owned()),
            (Some(ControlMessage::SubscriptionConfirmed(confirmed)), _) => {
                self.confirmed(confirmed)
            }
            (Some(_), _) => Ok(()),
        }
    }

    fn event(&mut self, position: &Position) -> Result<(), String> {
        self.stay_in(&position.epoch)?;
        let offset = position.offset;
        if !self.seen.insert(offset) {
            return Err(format!("{offset} comes twice"));
        }
        if self.replay.left == 0 {
            return self.move_on(offset);
        }
        let Replay { last, up_to, .. } = self.replay;
        if offset <= last || offset > up_to {
            return Err(format!("{offset} is replayed after {last}, up to {up_to}"));
        }
        self.replay.left -= 1;
        self.replay.last = offset;
        Ok(())
    }

    fn move_on(&mut self, offset: u64) -> Result<(), String> {
        if offset <= self.last {
            return Err(format!("{offset} comes after {}", self.last));
        }
        self.last = offset;
        Ok(())
    }

    fn confirmed(&mut self, confirmed: &SubscriptionConfirmed) -> Result<(), String> {
        let position = confirmed.position.as_ref();
        let position = position.ok_or("a confirmation without a position")?;
        self.stay_in(&position.epoch)?;
        if self.replay.left > 0 {
            return Err("a confirmation within a replay".to_owned());
        }
        if position.offset < self.last {
            return Err(format!(
                "{} is confirmed after {}",
                position.offset, self.last
            ));
        }
        if !confirmed.recovered && confirmed.replayed > 0 {
            return Err("a replay in part".to_owned());
        }
        self.last = position.offset;
        self.replay = Replay {
            left: confirmed.replayed,
            last: 0,
            up_to: position.offset,
        };
        Ok(())
    }

    fn stay_in(&mut self, epoch: &str) -> Result<(), String> {
        let known = self.epoch.get_or_insert_with(|| epoch.to_owned());
        if known != epoch {
            return Err(format!("epoch {epoch} after {known}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event, or a confirmation with the number of replayed events that follow.
    #[derive(Clone, Copy)]
    enum Frame {
        Event(u64),
        Confirmed(u64, u64),
    }
    use Frame::{Confirmed, Event};

    fn verdict(frames: &[Frame]) -> Result<(), String> {
        let mut order = Order::default();
        frames.iter().try_for_each(|frame| {
            let position = |offset| Position {
                epoch: "e".to_owned(),
                offset,
            };
            let mut envelope = Envelope::default();
            match *frame {
                Event(offset) => envelope.position = Some(position(offset)),
                Confirmed(offset, replayed) => {
                    let confirmed = SubscriptionConfirmed {
                        position: Some(position(offset)),
                        recovered: replayed > 0,
                        replayed,
                        ..Default::default()
                    };
                    envelope.control = Some(ControlMessage::SubscriptionConfirmed(confirmed));
                }
            }
            order.take(&envelope)
        })
    }

    #[test]
    fn sequences_that_the_protocol_allows_are_accepted() {
        for frames in [
            &[Event(1), Confirmed(5, 2), Event(2), Event(4), Event(6)][..],
            &[
                Confirmed(5, 0),
                Event(6),
                Confirmed(6, 1),
                Event(3),
                Event(7),
            ],
        ] {
            assert_eq!(verdict(frames), Ok(()));
        }
    }

    #[test]
    fn sequences_that_the_protocol_forbids_are_found() {
        for frames in [
            &[Event(2), Event(1)][..],
            &[Confirmed(5, 0), Event(5)],
            &[Confirmed(5, 2), Event(3), Event(2)],
            &[Confirmed(5, 2), Event(3), Event(6)],
            &[Confirmed(5, 1), Event(3), Event(4)],
            &[Event(3), Confirmed(5, 1), Event(3)],
            &[Event(6), Confirmed(5, 0)],
            &[Confirmed(5, 1), Confirmed(5, 0)],
        ] {
            assert!(verdict(frames).is_err());
        }
    }
}
