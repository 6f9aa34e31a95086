//! The turns in which tenants' connections read what they missed from the log.

use std::rc::Rc;

use super::{ShardHub, TenantHere};
use crate::{hub::readers::ReadSlice, outbox::Outbox};

/// How many tenants may read their logs in a turn.
const TENANTS_READING_A_TURN: usize = 4;

/// A connection's place among those of its tenant that wait to read the log. Dropped, it
/// makes room for the next.
#[derive(Debug)]
pub(in crate::hub) struct ReadingPlace {
    here: Rc<TenantHere>,
    ticket: u64,
}

impl ReadingPlace {
    /// Takes what was read off what the tenant may read in this turn.
    pub(in crate::hub) fn pay(&self, slice: &ReadSlice) {
        self.here.readers.pay(slice);
    }
}

impl Drop for ReadingPlace {
    fn drop(&mut self) {
        self.here.readers.leave(self.ticket);
    }
}

impl ShardHub {
    /// Has the connection wait for its turn to read the log. It is nudged when that comes.
    pub(in crate::hub) fn wait_to_read(
        &self,
        here: &Rc<TenantHere>,
        outbox: &Rc<Outbox>,
    ) -> ReadingPlace {
        let ticket = here.readers.join(outbox);
        if !here.readers.has_turns.replace(true) {
            self.to_read.borrow_mut().push_back(Rc::clone(here));
            self.wake();
        }
        ReadingPlace {
            here: Rc::clone(here),
            ticket,
        }
    }

    /// Returns what the connection may read now, if it is its turn.
    pub(in crate::hub) fn read_slice(&self, place: &ReadingPlace) -> Option<ReadSlice> {
        place.here.readers.slice(place.ticket, self.turn.get())
    }

    /// Lets the next tenants read in this turn.
    pub(super) fn begin_reading(&self) {
        let mut to_read = self.to_read.borrow_mut();
        for _ in 0..TENANTS_READING_A_TURN.min(to_read.len()) {
            let Some(here) = to_read.pop_front() else {
                break;
            };
            if here.readers.begin_turn(self.turn.get()) {
                to_read.push_back(here);
            } else {
                here.readers.has_turns.set(false);
            }
        }
    }
}
