//! Decides for whom a shard works next: deficit round robin between tenants, with sparse
//! flows first. Knows nothing of what is done.
//!
//! A shard is one thread, so whatever it does for one tenant the others wait for. All of
//! its work is therefore charged in one unit, [`Cost`], and is taken from five queues of the
//! same kind, each of which has a bounded part of every turn of the shard:
//!
//! | queue | work |
//! |---|---|
//! | deliveries | events are offered to the connections that they match |
//! | wake-ups | connections are woken to write what is queued for them |
//! | departures | topics of connections that have gone are taken out of the index |
//! | large writes | connections write 128 KiB, where more than 16 KiB wait |
//! | work | calls of backends with their answers, requests and frames of clients, and replays; beside those of the tenants a flow of handshakes and one of large bodies that are read |
//!
//! The first three are served by the shard itself. What waits in the other two, which are
//! [`WorkQueue`]s, are tasks, which do their work when they are granted it, and charge it.
//!
//! In a turn a tenant gets a [`QUANTUM`] from each queue, and a queue serves
//! [`FLOWS_A_TURN`] quanta at most. Work is never interrupted: a step that takes more than
//! was left puts the flow into debt, and later quanta pay that off. So over time a tenant
//! gets no more than its share, whatever its steps cost. Steps that could take longer than
//! about 1 ms are cut into parts, or are [offloaded](TenantWork::offload) to another thread.

mod cost;
mod deficit_queue;
mod offload;
#[cfg(test)]
mod tests;
mod work_queue;

pub use self::{
    cost::Cost,
    deficit_queue::{DeficitQueue, Flow},
    work_queue::{AwaitedTurn, Place, TenantWork, Waiter, WorkFlow, WorkQueue},
};

/// What a flow may use in a turn: long enough that a change of tasks, 1 to 3 µs, does not
/// matter, and short enough that a tenant that waits for some others is served within a
/// millisecond.
pub const QUANTUM: Cost = Cost::nanoseconds(128_000);

/// How many quanta a queue serves in a turn, which bounds a turn of the shard whatever the
/// number of tenants.
pub const FLOWS_A_TURN: usize = 8;
