//! Decides which tenant a shard works for next: deficit round robin between tenants, with sparse
//! flows first. Knows nothing about the work itself.
//!
//! A shard is one thread, so its work for one tenant delays all others. All work is therefore
//! charged in one unit, [`Cost`], and scheduled by five queues of the same kind, each with a
//! bounded share of every turn of the shard:
//!
//! | queue | work |
//! |---|---|
//! | deliveries | events are offered to the connections that they match |
//! | wake-ups | connections are woken to write what is queued for them |
//! | departures | topics of closed connections are removed from the index |
//! | large writes | connections write 128 KiB, where more than 16 KiB wait |
//! | work | backends' calls and the answers to them, clients' requests and frames, and replays;
//! apart from the tenants' flows, one flow of handshakes and one for reading large bodies |
//!
//! The shard itself serves the first three. The other two are [`WorkQueue`]s of waiting tasks: a
//! task that is granted a quantum does its work and charges it.
//!
//! In a turn a tenant gets a [`QUANTUM`] from each queue, and a queue serves at most
//! [`FLOWS_PER_TURN`] quanta. Work is never interrupted: a step that takes more than was left puts
//! the flow into debt, which later quanta pay off. So over time a tenant gets no more than its
//! share, whatever its steps cost. Steps that could take longer than about 1 ms are split, or
//! [offloaded](TenantWork::offload) to another thread.

mod cost;
mod deficit_queue;
mod offload;
#[cfg(test)]
mod tests;
mod work_queue;

pub use self::{
    cost::Cost,
    deficit_queue::{DeficitQueue, Flow},
    work_queue::{AwaitedQuantum, TenantWork, Waiter, WorkFlow, WorkQueue, WorkTicket},
};

/// The cost that a flow may use in a turn: long enough that a switch between tasks, 1 to 3 µs,
/// does not matter, and short enough that a tenant waiting behind a few others is served within a
/// millisecond.
pub const QUANTUM: Cost = Cost::from_nanos(128_000);

/// Most quanta that a queue serves in a turn, which bounds a turn of the shard whatever the
/// number of tenants.
pub const FLOWS_PER_TURN: usize = 8;
