//! The histograms that the shards keep: of their turns, and of the time until events are written.
//! They are written here: the registry's histograms would need a lock for each value, while the
//! shards count in their own cells.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use crate::tally::{DurationHistogram, ShardTally};

const CPU: &str = "sidewire_shard_turn_cpu_seconds";
const CPU_HELP: &str = "CPU time of a shard's thread for one turn, in seconds. A turn is one round of all tasks that are ready. Turns of less than 0.1 ms count with their wall time.";
const STALL: &str = "sidewire_shard_stall_seconds";
const STALL_HELP: &str = "Wall time of the same turns, in seconds. Where it is much longer than the CPU time, the shard's thread waited for a core.";
const LATENCY: &str = "sidewire_delivery_latency_seconds";
const LATENCY_HELP: &str = "Time from the append of a backend's event to its last byte being handed to the kernel, for each connection that it matched, in seconds. Events that are sent again to clients that resume are not counted. The events that one system call completes count with the time of the oldest.";

/// Appends the histograms, each summed over all shards, to a scrape.
pub(super) fn append_shard_histograms(scrape: &mut String, tallies: &[Arc<ShardTally>]) {
    let of_shards = |durations: fn(&ShardTally) -> &DurationHistogram| {
        tallies.iter().map(|it| durations(it)).collect::<Vec<_>>()
    };
    for (name, help, durations) in [
        (CPU, CPU_HELP, of_shards(|it| &it.turn_cpu)),
        (STALL, STALL_HELP, of_shards(|it| &it.turn_stall)),
        (LATENCY, LATENCY_HELP, of_shards(|it| &it.delivery_latency)),
    ] {
        let appended = append_histogram(scrape, name, help, &durations);
        debug_assert!(appended.is_ok(), "a string takes all that is written to it");
    }
}

/// Appends a histogram, summed over its parts, to a scrape.
pub(super) fn append_histogram(
    scrape: &mut String,
    name: &str,
    help: &str,
    parts: &[&DurationHistogram],
) -> fmt::Result {
    writeln!(scrape, "# HELP {name} {help}\n# TYPE {name} histogram")?;
    let buckets: Vec<_> = parts.iter().map(|it| it.buckets()).collect();
    let bounds = DurationHistogram::BOUNDS.map(|bound| bound.as_secs_f64().to_string());
    let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
    let mut count = 0;
    for (index, bound) in bounds.enumerate() {
        count += buckets.iter().filter_map(|it| it.get(index)).sum::<u64>();
        writeln!(scrape, "{name}_bucket{{le=\"{bound}\"}} {count}")?;
    }
    let sum: Duration = parts.iter().map(|it| it.sum()).sum();
    let sum = sum.as_secs_f64();
    writeln!(scrape, "{name}_sum {sum}\n{name}_count {count}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_histograms_are_cumulative_and_sum_up_the_shards() {
        let tallies: [Arc<ShardTally>; 2] = Default::default();
        for tally in &tallies {
            tally.turn_cpu.record(Duration::from_micros(100));
            tally.turn_stall.record(Duration::from_micros(200));
        }
        tallies[0].turn_cpu.record(Duration::from_millis(3));
        tallies[1].turn_stall.record(Duration::from_secs(20));
        tallies[1]
            .delivery_latency
            .record_many(Duration::from_millis(1), 64);
        let mut scrape = String::new();
        append_shard_histograms(&mut scrape, &tallies);
        let lines: Vec<_> = scrape.lines().collect();
        assert_eq!(lines[1], format!("# TYPE {CPU} histogram"));
        for line in [
            "sidewire_shard_turn_cpu_seconds_bucket{le=\"0.0001\"} 2",
            "sidewire_shard_turn_cpu_seconds_bucket{le=\"0.0025\"} 2",
            "sidewire_shard_turn_cpu_seconds_bucket{le=\"0.005\"} 3",
            "sidewire_shard_turn_cpu_seconds_bucket{le=\"+Inf\"} 3",
            "sidewire_shard_turn_cpu_seconds_sum 0.0032",
            "sidewire_shard_turn_cpu_seconds_count 3",
            "sidewire_shard_stall_seconds_bucket{le=\"0.0001\"} 0",
            "sidewire_shard_stall_seconds_bucket{le=\"1\"} 2",
            "sidewire_shard_stall_seconds_bucket{le=\"+Inf\"} 3",
            "sidewire_shard_stall_seconds_sum 20.0004",
            "sidewire_shard_stall_seconds_count 3",
            "sidewire_delivery_latency_seconds_bucket{le=\"0.0005\"} 0",
            "sidewire_delivery_latency_seconds_bucket{le=\"0.001\"} 64",
            "sidewire_delivery_latency_seconds_sum 0.064",
            "sidewire_delivery_latency_seconds_count 64",
        ] {
            assert!(lines.contains(&line), "{line} in {scrape}");
        }
    }
}
