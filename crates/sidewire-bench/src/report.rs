//! The results of a run, for text and JSON output. Measures nothing.

use std::time::Duration;

use serde::Serialize;

use super::{BenchPlan, TargetProtocol, latency::Percentiles};

/// The result of a run. Unknown figures are `None`.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The scenario.
    pub scenario: &'static str,
    /// `relay` or `floor`.
    pub target: &'static str,
    /// Number of client connections.
    pub connections: usize,
    /// Number of their topics.
    pub topics: usize,
    /// The size of a posted event in bytes.
    pub payload_bytes: usize,
    /// The subprotocol of the clients.
    pub encoding: &'static str,
    /// The size of a received event in bytes, without the frame's header.
    pub received_bytes: Option<usize>,
    /// The measured time in seconds.
    pub seconds: f64,
    /// Calls answered in that time.
    pub calls: u64,
    /// Events stored by the target in that time.
    pub events: u64,
    /// Events per second.
    pub events_per_s: f64,
    /// Frames with events received in that time.
    pub deliveries: u64,
    /// Deliveries per second.
    pub deliveries_per_s: f64,
    /// Stored events that a connected subscriber has not received within 10 s after the
    /// end; counted over the whole run, like the next five figures.
    pub lost: u64,
    /// Events received more than once by a connection.
    pub duplicated: u64,
    /// Events received by a connection after a later one.
    pub reordered: u64,
    /// Received events that this run has not posted for the connection.
    pub foreign: u64,
    /// Events that the target refused.
    pub refused: u64,
    /// Connections lost after they were subscribed.
    pub disconnects: u64,
    /// Latency of each frame, from sending the POST to receiving the frame.
    pub latency_us: Option<Percentiles>,
    /// Latency of each event, from sending the POST until its last client received it.
    pub last_latency_us: Option<Percentiles>,
    /// Latency of each call, from sending the POST to its answer.
    pub answer_latency_us: Option<Percentiles>,
    /// Connections that were opened and subscribed.
    pub connects: u64,
    /// Connects per second.
    pub connects_per_s: f64,
    /// Connections that failed to open or subscribe.
    pub connect_failures: u64,
    /// The resources that the generator itself used.
    pub generator: GeneratorUse,
    /// The resources that the server's process used, if known.
    pub server: Option<ServerUse>,
    /// The figures of the scenario `growth`.
    #[serde(flatten)]
    pub growth: Option<GrowthResult>,
    /// Number of connections opened concurrently.
    pub concurrency: usize,
    /// The first failure.
    #[serde(skip)]
    pub first_failure: Option<String>,
}

/// The resources that the generator used while measuring.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct GeneratorUse {
    /// CPU time in seconds.
    pub cpu_s: f64,
    /// Share of one core. Near 1 the generator was the bottleneck, not the target.
    pub cpu_share: f64,
}

/// The resources that the server's process used while measuring.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct ServerUse {
    /// CPU time in seconds.
    pub cpu_s: f64,
    /// CPU time per delivery.
    pub cpu_us_per_delivery: Option<f64>,
    /// CPU time per event.
    pub cpu_us_per_event: Option<f64>,
    /// CPU time per connection while connecting.
    pub cpu_us_per_connect: Option<f64>,
    /// Memory before the first connection.
    pub memory_bytes_before: Option<u64>,
    /// Memory at the end.
    pub memory_bytes_after: Option<u64>,
    /// The difference, per connection.
    pub memory_bytes_per_connection: Option<f64>,
}

/// The server's cost of an event while few and while many clients are connected.
#[derive(Debug, Clone, Serialize)]
pub struct GrowthResult {
    /// The median of the blocks with few clients.
    pub few_cpu_us_per_event: f64,
    /// The median of the blocks with many clients.
    pub many_cpu_us_per_event: f64,
    /// The cost with many clients divided by the cost with few.
    pub ratio: f64,
    /// The blocks, in the order in which they were measured.
    pub blocks: Vec<GrowthBlock>,
}

/// A block of the scenario `growth`: one measurement with a fixed number of clients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GrowthBlock {
    /// Number of connected clients.
    pub connections: usize,
    /// Number of events.
    pub events: u64,
    /// The server's CPU time per event.
    pub cpu_us_per_event: Option<f64>,
}

impl GrowthResult {
    pub(super) fn from_blocks(blocks: Vec<GrowthBlock>, few: usize) -> Self {
        let median_of = |is_few: bool| {
            let of_these = blocks.iter().filter(|it| (it.connections == few) == is_few);
            median(of_these.filter_map(|it| it.cpu_us_per_event).collect())
        };
        let (few, many) = (median_of(true), median_of(false));
        Self {
            few_cpu_us_per_event: few,
            many_cpu_us_per_event: many,
            ratio: many / few,
            blocks,
        }
    }
}

impl BenchReport {
    /// Creates the report of a run that has not started.
    pub(super) fn empty(plan: &BenchPlan) -> Self {
        let fanout = plan.scenario.fanout();
        Self {
            scenario: plan.scenario.name(),
            target: match plan.target.speech {
                TargetProtocol::Relay(_) => "relay",
                TargetProtocol::Floor(_) => "floor",
            },
            connections: fanout.connections,
            topics: fanout.topics,
            payload_bytes: plan.payload_bytes,
            concurrency: plan.concurrency,
            encoding: plan.target.encoding().subprotocol(),
            received_bytes: None,
            seconds: 0.0,
            calls: 0,
            events: 0,
            events_per_s: 0.0,
            deliveries: 0,
            deliveries_per_s: 0.0,
            lost: 0,
            duplicated: 0,
            reordered: 0,
            foreign: 0,
            refused: 0,
            disconnects: 0,
            latency_us: None,
            last_latency_us: None,
            answer_latency_us: None,
            connects: 0,
            connects_per_s: 0.0,
            connect_failures: 0,
            generator: GeneratorUse::default(),
            server: None,
            growth: None,
            first_failure: None,
        }
    }

    /// Describes losses, duplicates and other failures; `None` if there were none.
    #[must_use]
    pub fn failure_summary(&self) -> Option<String> {
        let faults = [
            (self.lost, "lost"),
            (self.duplicated, "duplicated"),
            (self.reordered, "out of order"),
            (self.foreign, "of another run"),
            (self.refused, "refused"),
        ];
        let events = faults
            .iter()
            .map(|(count, what)| (*count, format!("events {what}")));
        let connections = [
            (self.disconnects, "connections lost".to_owned()),
            (self.connect_failures, "connections failed".to_owned()),
        ];
        let faults: Vec<_> = events
            .chain(connections)
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        if faults.is_empty() {
            return None;
        }
        let reason = self.first_failure.as_ref();
        let reason = reason.map_or_else(String::new, |it| format!(" (first: {it})"));
        Some(format!("{}{reason}", faults.join(", ")))
    }
}

/// Returns the count per second.
pub(super) fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}

/// Returns the CPU time per item in microseconds; `None` for a count of 0.
pub(super) fn micros_each(cpu: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| cpu.as_secs_f64() * 1e6 / count as f64)
}

/// Returns the median; NaN if there are no values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2);
    let lower = values.get(values.len().saturating_sub(1) / 2);
    match (lower, upper) {
        (Some(lower), Some(upper)) => f64::midpoint(*lower, *upper),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_and_rates_are_computed_from_the_elapsed_time() {
        assert_eq!(per_second(50, Duration::from_millis(500)), 100.0);
        assert_eq!(per_second(50, Duration::ZERO), 0.0);
        assert_eq!(micros_each(Duration::from_millis(3), 1000), Some(3.0));
        assert_eq!(micros_each(Duration::from_millis(3), 0), None);
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
        assert!(median(vec![]).is_nan());
    }

    #[test]
    fn growth_compares_the_medians() {
        let block = |connections, cpu_us_per_event| GrowthBlock {
            connections,
            events: 1,
            cpu_us_per_event: Some(cpu_us_per_event),
        };
        let blocks = vec![
            block(10, 1.0),
            block(99, 3.0),
            block(99, 5.0),
            block(10, 2.0),
            block(10, 9.0),
            block(99, 4.0),
        ];
        let growth = GrowthResult::from_blocks(blocks, 10);
        assert_eq!(growth.few_cpu_us_per_event, 2.0);
        assert_eq!(growth.many_cpu_us_per_event, 4.0);
        assert_eq!(growth.ratio, 2.0);
    }
}
