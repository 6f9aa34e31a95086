//! `sidewire bench`: a load generator, for who sizes a machine and for who works
//! on the relay. One thread is all clients and all backends at once; it looks at
//! no more of a frame than its length and its event's number, so that the target
//! is the one with the work.
//!
//! ```text
//! Plan ─▶ scenarios ─▶ engine ─▶ clients ─▶ link        the target's sockets
//!            │           │  └───▶ publisher ─▶ link
//!            ▼           ▼
//!         report ◀── tally, latency, server_process
//! ```
//!
//! Knows of the target what stands in the protocol and, given its process, what
//! the kernel tells; nothing of how a relay is built.

mod channels;
mod clients;
mod engine;
mod error;
mod event;
mod frames;
mod latency;
mod limits;
mod link;
mod meters;
mod plan;
mod publisher;
mod report;
mod scenarios;
mod server_process;
mod tally;
mod target;
mod timer;

pub use self::{
    error::BenchError,
    event::MouldError,
    latency::Percentiles,
    limits::warnings,
    plan::{Fanout, LOST_AFTER, Plan, Progress, Scenario, Window},
    report::{Block, GeneratorUse, Growth, Report, ServerUse},
    scenarios::run,
    target::{Framing, Place, Relay, Speech, Target},
};
