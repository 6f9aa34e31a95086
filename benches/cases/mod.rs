//! What is measured, once for both `micro` (time) and `instructions` (callgrind):
//! the pure parts of an event's path, and the check of a token. Knows neither
//! clock nor callgrind.

mod events;
mod frames;
mod hub;
mod inspect;
mod json;
mod tokens;

use sidewire_protocol::topic::fix_hash_seed;

/// Something that can be done again and again.
pub(crate) trait Subject {
    /// Makes ready for so many operations; not measured.
    fn prepare(&mut self, operations: u64) {
        let _any_number_will_do = operations;
    }

    /// The most operations for which it can be made ready.
    fn operations_max(&self) -> u64 {
        32
    }

    /// Does it once.
    fn operate(&mut self);
}

/// Has so many operations done, in rounds, each of which `measure` does by itself.
pub(crate) fn in_rounds(
    subject: &mut dyn Subject,
    operations: u64,
    mut measure: impl FnMut(&mut dyn Subject, u64),
) {
    let mut left = operations;
    while left > 0 {
        let round = left.min(subject.operations_max());
        subject.prepare(round);
        measure(subject, round);
        left -= round;
    }
}

/// A subject by name, `what/which`. It is made only when it is its turn.
pub(crate) struct Case {
    name: String,
    make: Box<dyn Fn() -> Box<dyn Subject>>,
}

impl Case {
    fn new<S: Subject + 'static>(name: String, make: impl Fn() -> S + 'static) -> Self {
        Self {
            name,
            make: Box::new(move || Box::new(make())),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn make(&self) -> Box<dyn Subject> {
        (self.make)()
    }
}

/// Every case, in the order of an event's path. To be asked for once, before all
/// else: the topics that are made from then on lie in maps as in any other run.
pub(crate) fn all() -> Vec<Case> {
    assert!(fix_hash_seed(1));
    let parts = [
        inspect::cases(),
        json::cases(),
        frames::cases(),
        hub::cases(),
        tokens::cases(),
    ];
    parts.into_iter().flatten().collect()
}
