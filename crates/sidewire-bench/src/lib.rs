//! `sidewire bench`: a load generator, for sizing machines and for working on the
//! relay. One thread runs all clients and all backends. It reads only the length of a
//! frame and the number of its event, so that the target does most of the work.
//!
//! ```text
//! Plan ─▶ scenarios ─▶ engine ─▶ clients ─▶ link        the target's sockets
//!            │           │  └───▶ publisher ─▶ link
//!            ▼           ▼
//!         report ◀── tally, latency, server_process
//! ```
//!
//! Knows the protocol and, given the target's process id, the kernel's figures about
//! that process; nothing about the relay's internals.
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        reason = "a test may fail loudly"
    )
)]

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
    event::EventTemplateError,
    latency::Percentiles,
    limits::{RelayLimits, warnings},
    plan::{BenchPlan, BenchProgress, LOST_AFTER, MeasureWindow, Scenario, ScenarioFanout},
    report::{BenchReport, GeneratorUse, GrowthBlock, GrowthResult, ServerUse},
    scenarios::run,
    target::{BenchTarget, Framing, RelayTarget, TargetEndpoint, TargetProtocol, TokenMaker},
};
