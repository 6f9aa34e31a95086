//! The report of `sidewire bench` as a text table.

use std::fmt;

use sidewire_bench::{BenchReport, Percentiles, ServerUse};

/// A generator that uses more than this share of a core counts as the bottleneck.
const GENERATOR_SHARE_MAX: f64 = 0.9;

/// Formats the report. Figures that the scenario does not measure are left out.
pub(super) fn report_table(report: &BenchReport) -> String {
    let mut table = ReportTable::default();
    let each = |value: f64, unit: &str| format!("{value:.2} {unit}");
    table.add_row(
        "scenario",
        format!("{}, {}", report.scenario, report.target),
    );
    if report.connections > 0 {
        let topics = format!("{} on {} topics", report.connections, report.topics);
        table.add_row("connections", topics);
        let connects = format!(
            "{} at {:.0} a second",
            report.connects, report.connects_per_s
        );
        table.add_row("connects", connects);
    }
    if report.events > 0 {
        let events = format!(
            "{} of {} bytes in {:.2} s: {:.0} a second",
            report.events, report.payload_bytes, report.seconds, report.events_per_s
        );
        table.add_row("events", events);
    }
    if report.deliveries > 0 {
        let bytes = report.received_bytes.map_or_else(String::new, |bytes| {
            format!(", {bytes} bytes each by {}", report.encoding)
        });
        let deliveries = format!(
            "{}: {:.0} a second{bytes}",
            report.deliveries, report.deliveries_per_s
        );
        table.add_row("deliveries", deliveries);
    }
    table.add_latency("POST to frame", report.latency_us);
    table.add_latency("POST to its last frame", report.last_latency_us);
    table.add_latency("POST to answer", report.answer_latency_us);
    if let Some(server) = &report.server {
        table.add_server(server, &each);
    }
    if let Some(growth) = &report.growth {
        table.add_row(
            "an event, few connected",
            each(growth.few_cpu_us_per_event, "µs"),
        );
        table.add_row(
            "an event, many connected",
            each(growth.many_cpu_us_per_event, "µs"),
        );
        table.add_row("ratio, many to few", format!("{:.3}", growth.ratio));
    }
    table.add_generator(report.generator.cpu_share);
    let verdict = report.failure_summary();
    let well = "nothing lost, duplicated, out of order or refused";
    table.add_row("verdict", verdict.unwrap_or_else(|| well.to_owned()));
    table.0
}

/// Lines of a name and a value.
#[derive(Default)]
struct ReportTable(String);

impl ReportTable {
    fn add_row(&mut self, name: &str, value: impl fmt::Display) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(&format!("{name:<28}{value}"));
    }

    fn add_latency(&mut self, name: &str, latency: Option<Percentiles>) {
        if let Some(Percentiles {
            p50,
            p99,
            p999,
            max,
        }) = latency
        {
            let value =
                format!("p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs, max {max:.0} µs");
            self.add_row(name, value);
        }
    }

    fn add_server(&mut self, server: &ServerUse, each: &dyn Fn(f64, &str) -> String) {
        let costs = [
            ("server, a delivery", server.cpu_us_per_delivery),
            ("server, an event", server.cpu_us_per_event),
            ("server, a connect", server.cpu_us_per_connect),
        ];
        for (name, cost) in costs {
            if let Some(cost) = cost {
                self.add_row(name, each(cost, "µs of CPU"));
            }
        }
        if let Some(bytes) = server.memory_bytes_per_connection {
            self.add_row("server, a connection", each(bytes / 1024.0, "KiB"));
        }
    }

    fn add_generator(&mut self, share: f64) {
        let mark = if share > GENERATOR_SHARE_MAX {
            ": the generator was the bottleneck, not the relay"
        } else {
            ""
        };
        self.add_row(
            "generator",
            format!("{:.0} % of a core{mark}", share * 100.0),
        );
    }
}
