//! What `sidewire top` shows, and how.

use bytesize::ByteSize;
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize},
    text::Line,
    widgets::{Block, Borders, Paragraph, Row, Table, Widget},
};
use sidewire_client::{ConnectionInfo, LogPosition};

use super::scrape::{Scrape, quantile, whole};
use crate::cli::{
    connection_columns::{HEADINGS, PAGE, age, cells},
    plain_text::plain_text,
};

/// The metric with the time from the append of an event to its last byte.
const LATENCY: &str = "sidewire_delivery_latency_seconds";

/// Tenants that are shown at a time.
const TENANT_ROWS: usize = 10;

/// Everything on the screen.
#[derive(Debug, Clone, Default)]
pub(super) struct TopView {
    pub(super) summary: Vec<String>,
    /// Why the summary is not that of now.
    pub(super) stale: Option<String>,
    pub(super) tenants: Vec<TenantRow>,
    /// Why the tenants are shown without users and topics.
    pub(super) tenants_notice: Option<String>,
    /// The tenant whose connections are shown.
    pub(super) selected: Option<String>,
    pub(super) connections: Vec<ConnectionInfo>,
    /// Why its connections are not shown.
    pub(super) connections_notice: Option<String>,
    /// True if the tenant has more connections than those that were looked at.
    pub(super) is_part: bool,
    /// The time, in Unix seconds.
    pub(super) now: i64,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TenantRow {
    pub(super) name: String,
    pub(super) connections: u64,
    /// `None` if the ingest listener could not be asked.
    pub(super) users: Option<u64>,
    pub(super) topics: Option<u64>,
    pub(super) head: Option<LogPosition>,
    /// Events a second since the last look.
    pub(super) event_rate: Option<f64>,
}

impl TenantRow {
    /// Sets the rate of events since the tenant's log had the earlier head.
    pub(super) fn set_event_rate(&mut self, earlier: Option<&LogPosition>, seconds: f64) {
        let rate = |earlier: &LogPosition, head: &LogPosition| {
            let offset = |at: &LogPosition| at.offset.parse::<u64>().ok();
            let is_same_log = earlier.epoch == head.epoch && seconds > 0.0;
            let new = offset(head)?.checked_sub(offset(earlier)?)?;
            is_same_log.then_some(new as f64 / seconds)
        };
        self.event_rate = earlier
            .zip(self.head.as_ref())
            .and_then(|(earlier, head)| rate(earlier, head));
    }
}

/// Returns the lines that summarize what the relay does. Without an earlier scrape there are no
/// rates. `now` is the time in Unix seconds.
pub(super) fn summary(before: Option<&Scrape>, after: &Scrape, now: i64) -> Vec<String> {
    let seconds = before.map(|before| (after.at - before.at).as_secs_f64());
    let change = |value: &dyn Fn(&Scrape) -> Option<f64>| {
        let (before, seconds) = before.zip(seconds.filter(|seconds| *seconds > 0.0))?;
        // A counter that has fallen belongs to a relay that was restarted.
        let change = value(after)? - value(before)?;
        (change >= 0.0).then_some(change / seconds)
    };
    let counter = |name: &str| rate(change(&|scrape| scrape.value(name)));
    let counters = |name: &str| rate(change(&|scrape| scrape.sum(name)));
    let number = |name: &str| optional(after.value(name));
    let bytes = |value: Option<f64>| {
        let size = value.map(|value| ByteSize::b(whole(value)));
        optional(size.map(|size| size.display().iec().to_string()))
    };
    let latency = |share| {
        let before = before.map(|before| before.buckets(LATENCY));
        let bound = quantile(&before?, &after.buckets(LATENCY), share)?;
        Some(format!("≤ {} ms", bound * 1e3))
    };
    let version = after.by_label("sidewire_build_info", "version").next();
    let started = after.value("process_start_time_seconds");
    let up = started.map(|started| age(whole(started).cast_signed(), now));
    let is_draining = after.value("sidewire_draining").is_some_and(|it| it > 0.0);
    let cpu = change(&|scrape| scrape.value("process_cpu_seconds_total"));
    let blocked = after.value("sidewire_connections_blocked_longest_seconds");
    vec![
        format!(
            "sidewire {}, up for {}{}",
            optional(version.map(|(version, _)| version)),
            optional(up),
            if is_draining { ", draining" } else { "" },
        ),
        format!(
            "connections {}   JSON {}   blocked {}, the longest for {}",
            number("sidewire_connections"),
            number("sidewire_json_connections"),
            number("sidewire_connections_blocked"),
            optional(blocked.map(|seconds| format!("{seconds:.1} s"))),
        ),
        format!(
            "events in {}   deliveries {}   out {}/s   waiting {}",
            counter("sidewire_events_ingested_total"),
            counter("sidewire_events_written_total"),
            bytes(change(&|scrape| {
                scrape.value("sidewire_client_bytes_written_total")
            })),
            number("sidewire_events_queued"),
        ),
        format!(
            "latency p50 {}, p99 {}   subscriptions {}   tenants {}",
            optional(latency(0.5)),
            optional(latency(0.99)),
            number("sidewire_subscriptions"),
            number("sidewire_tenants"),
        ),
        format!(
            "connects {}   disconnects {}   refused {}   limits {}   dropped {}",
            counters("sidewire_connections_opened_total"),
            counters("sidewire_connections_closed_total"),
            counters("sidewire_handshakes_refused_total"),
            counters("sidewire_limits_exceeded_total"),
            counters("sidewire_events_dropped_total"),
        ),
        format!(
            "CPU {}   resident {}   held {} of {}   descriptors {}",
            optional(cpu.map(|cpu| format!("{:.0} %", cpu * 100.0))),
            bytes(after.value("process_resident_memory_bytes")),
            bytes(after.sum("sidewire_memory_bytes")),
            bytes(after.value("sidewire_memory_max_bytes")),
            number("process_open_fds"),
        ),
    ]
}

fn rate(change: Option<f64>) -> String {
    match change {
        None => "-".to_owned(),
        Some(change) if change < 10.0 => format!("{change:.1}/s"),
        Some(change) => format!("{change:.0}/s"),
    }
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

impl Widget for &TopView {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let lines = self.stale.iter().chain(&self.summary);
        let lines: Vec<_> = lines.map(|line| Line::raw(&**line)).collect();
        let tenants = self.tenants.len().clamp(1, TENANT_ROWS) + 2;
        let [summary, tenants, connections] = Layout::vertical([
            Constraint::Length(rows(lines.len() + 1)),
            Constraint::Length(rows(tenants)),
            Constraint::Min(3),
        ])
        .areas(area);
        Paragraph::new(lines).render(summary, buffer);
        self.tenant_table().render(tenants, buffer);
        self.connection_table().render(connections, buffer);
    }
}

impl TopView {
    fn tenant_table(&self) -> Table<'_> {
        // The selected tenant stays in sight.
        let selected = self.selected_index().unwrap_or(0);
        let shown = self.tenants.iter();
        let shown = shown.skip(selected.saturating_sub(TENANT_ROWS - 1));
        let shown = shown.map(|tenant| {
            let row = Row::new([
                plain_text(&tenant.name).into_owned(),
                tenant.connections.to_string(),
                optional(tenant.users),
                optional(tenant.topics),
                rate(tenant.event_rate),
            ]);
            match self.selected.as_deref() == Some(&*tenant.name) {
                true => row.reversed(),
                false => row,
            }
        });
        let widths = [
            Constraint::Min(20),
            Constraint::Length(12),
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(12),
        ];
        let headings = ["TENANT", "CONNECTIONS", "USERS", "TOPICS", "EVENTS"];
        let title = match &self.tenants_notice {
            Some(notice) => format!("Tenants: {notice}"),
            None => "Tenants".to_owned(),
        };
        Table::new(shown, widths)
            .header(Row::new(headings).style(Style::new().bold()))
            .block(titled(title))
    }

    /// Returns the index of the selected tenant in its table.
    pub(super) fn selected_index(&self) -> Option<usize> {
        let selected = self.selected.as_deref()?;
        self.tenants.iter().position(|it| it.name == selected)
    }

    fn connection_table(&self) -> Table<'_> {
        let shown = self.connections.iter().map(|it| cells(it, self.now));
        let shown: Vec<_> = shown.collect();
        // Each column is as wide as its widest cell, and the user's takes what is left.
        let widths = HEADINGS.iter().enumerate().map(|(column, heading)| {
            let cells = shown.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            match *heading {
                "USER" => Constraint::Min(8),
                heading => Constraint::Length(rows(widest.max(heading.len()))),
            }
        });
        let widths: Vec<_> = widths.collect();
        let title = match (&self.selected, &self.connections_notice) {
            (None, _) => "No tenant has a connection".to_owned(),
            (Some(tenant), Some(notice)) => format!("Connections of {tenant}: {notice}"),
            (Some(tenant), None) if self.is_part => {
                format!("Slowest of the first {PAGE} connections of {tenant}")
            }
            (Some(tenant), None) => format!("Slowest connections of {tenant}"),
        };
        Table::new(shown.into_iter().map(Row::new), widths)
            .header(Row::new(HEADINGS).style(Style::new().bold()))
            .block(titled(title))
    }
}

/// Returns a number of rows or columns as the screen counts them.
fn rows(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn titled(title: String) -> Block<'static> {
    let title = plain_text(&title).into_owned();
    Block::new().borders(Borders::TOP).title(title)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sidewire_client::OutboxInfo;
    use tokio::time::advance;

    use super::*;

    /// As long as an address can be.
    const ADDRESS: &str = "2001:0db8:0123:4567:89ab:cdef:0123:4567";

    fn position(epoch: &str, offset: &str) -> LogPosition {
        LogPosition {
            epoch: epoch.to_owned(),
            offset: offset.to_owned(),
        }
    }

    #[test]
    fn the_rate_of_a_tenant_is_of_one_log() {
        let mut row = TenantRow {
            name: "acme".to_owned(),
            connections: 1,
            users: None,
            topics: None,
            head: Some(position("a", "30")),
            event_rate: None,
        };
        for (earlier, expected) in [
            (Some(position("a", "10")), Some(10.0)),
            (Some(position("b", "10")), None),
            (Some(position("a", "40")), None),
            (None, None),
        ] {
            row.set_event_rate(earlier.as_ref(), 2.0);
            assert_eq!(row.event_rate, expected, "{earlier:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rates_are_changes_by_the_seconds_between_two_scrapes() {
        let text = |events: u64, reason: u64, cpu: f64| {
            format!(
                "sidewire_build_info{{version=\"1.2.3\"}} 1\n\
                 process_start_time_seconds 1000\n\
                 sidewire_events_ingested_total {events}\n\
                 sidewire_connections_closed_total{{transport=\"websocket\",reason=\"lost\"}} {reason}\n\
                 sidewire_connections_closed_total{{transport=\"websocket\",reason=\"idle\"}} {reason}\n\
                 process_cpu_seconds_total {cpu}\n"
            )
        };
        let before = Scrape::parse(&text(100, 1, 1.0));
        let first = summary(None, &before, 1_060);
        assert!(
            first[0].starts_with("sidewire 1.2.3, up for 1m 0s"),
            "{first:?}"
        );
        assert!(
            first[2].starts_with("events in -   deliveries -   out -/s"),
            "{first:?}"
        );
        advance(Duration::from_secs(2)).await;
        let after = Scrape::parse(&text(140, 3, 2.0));
        let lines = summary(Some(&before), &after, 1_062);
        assert!(lines[2].starts_with("events in 20/s   "), "{lines:?}");
        assert!(lines[4].contains("disconnects 2.0/s"), "{lines:?}");
        assert!(lines[5].starts_with("CPU 50 %"), "{lines:?}");
        let restarted = summary(Some(&after), &before, 1_062);
        assert!(restarted[2].starts_with("events in -"), "{restarted:?}");
    }

    #[test]
    fn tables_show_tenants_and_connections() {
        let view = TopView {
            summary: vec!["the summary".to_owned()],
            tenants: vec![TenantRow {
                name: "acme".to_owned(),
                connections: 2,
                users: Some(1),
                topics: Some(3),
                head: None,
                event_rate: Some(4.25),
            }],
            selected: Some("acme".to_owned()),
            connections: vec![ConnectionInfo {
                id: "0-7".to_owned(),
                user: "ann".to_owned(),
                transport: "websocket".to_owned(),
                encoding: "json".to_owned(),
                since: 1_000,
                topics: 3,
                outbox: OutboxInfo {
                    frames: 2,
                    bytes: 99,
                },
                address: ADDRESS.to_owned(),
            }],
            now: 1_061,
            ..TopView::default()
        };
        let lines = super::super::rendered(&view, 100, 20);
        let words = |text: &str| {
            let line = lines.lines().find(|line| line.contains(text)).unwrap();
            line.split_whitespace().collect::<Vec<_>>().join(" ")
        };
        assert!(lines.starts_with("the summary\n"), "{lines}");
        assert_eq!(words("acme  "), "acme 2 1 3 4.2/s");
        assert_eq!(words("0-7"), format!("0-7 ann {ADDRESS} json 1m 1s 3 2 99"));
        assert!(lines.contains("Slowest connections of acme"), "{lines}");
    }
}
