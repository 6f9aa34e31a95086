//! The measured operations, shared by `micro` (time) and `instructions` (callgrind): the
//! pure parts of an event's path, and the check of a token. Knows nothing about clocks or
//! callgrind.

mod events;
mod frames;
mod hub;
mod inspect;
mod json;
mod tokens;

use sidewire_protocol::topic::fix_hash_seed;

/// An operation that can be repeated.
pub(crate) trait Subject {
    /// Prepares for this many operations; not measured.
    fn prepare(&mut self, operations: u64) {
        let _any_number_will_do = operations;
    }

    /// Returns the maximum number of operations that one preparation allows.
    fn operations_max(&self) -> u64 {
        32
    }

    /// Runs the operation once.
    fn operate(&mut self);
}

/// Runs this many operations, in rounds that `measure` runs one by one.
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

/// A subject by name, `what/which`. It is created only when it is measured.
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

/// Returns every case, in the order of an event's path. Call this once, before anything
/// else: then topics created later are laid out in maps as in any other run.
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
