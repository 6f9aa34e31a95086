//! What is measured, once for both `micro` (time) and `instructions` (callgrind):
//! the pure parts of an event's path, and the check of a token. Knows neither
//! clock nor callgrind.

mod events;
mod frames;
mod hub;
mod inspect;
mod tokens;

/// How many operations are measured in one go. More would let the outboxes grow
/// beyond what they keep when they run empty, and that growth is not what is asked.
pub(crate) const ROUND: u64 = 32;

/// Something that can be done again and again.
pub(crate) trait Subject {
    /// Makes ready for a round of operations; not measured.
    fn prepare(&mut self) {}

    /// Does it once.
    fn operate(&mut self);
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

/// Every case, in the order of an event's path.
pub(crate) fn all() -> Vec<Case> {
    let parts = [
        inspect::cases(),
        frames::cases(),
        hub::cases(),
        tokens::cases(),
    ];
    parts.into_iter().flatten().collect()
}
