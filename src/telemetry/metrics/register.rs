//! Registers series with their help texts, and those of one metric together. Knows the names of
//! only those metrics that two listeners share.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU64, Ordering},
};

use hyper::StatusCode;
use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;
use sidewire_protocol::NamedValues;

/// A counter whose value the process reads too.
pub(super) struct ReadableCounter {
    count: AtomicU64,
    series: Counter,
}

impl ReadableCounter {
    pub(super) fn new(series: Counter) -> Self {
        Self {
            count: AtomicU64::new(0),
            series,
        }
    }

    pub(super) fn increment(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Copies the value to its series, for a scrape.
    pub(super) fn publish(&self) {
        self.series.absolute(self.get());
    }
}

/// Registers series, each with its help text.
pub(super) struct SeriesRegistry<'a>(pub(super) &'a PrometheusRecorder);

impl SeriesRegistry<'_> {
    pub(super) fn counter(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Counter {
        self.0
            .describe_counter(KeyName::from(name), None, SharedString::from(help));
        self.0
            .register_counter(&series_key(name, labels), &METADATA)
    }

    pub(super) fn gauge(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
    ) -> Gauge {
        self.0
            .describe_gauge(KeyName::from(name), None, SharedString::from(help));
        self.0.register_gauge(&series_key(name, labels), &METADATA)
    }

    /// Registers the counters of a metric with one label, one for each name in `L`.
    pub(super) fn family<L: NamedValues>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
    ) -> CounterFamily<L> {
        self.family_with(name, help, label, &[], &[])
    }

    /// Registers the counters of a metric with one label, one for each name in `L` but those of
    /// `without`, which cannot occur.
    pub(super) fn family_without<L: NamedValues>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        without: &[L],
    ) -> CounterFamily<L> {
        self.family_with(name, help, label, &[], without)
    }

    /// Registers the counters of a metric, each with `others` as further labels, but for those of
    /// `without`, which cannot occur.
    pub(super) fn family_with<L: NamedValues>(
        &self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        others: &[(&'static str, &'static str)],
        without: &[L],
    ) -> CounterFamily<L> {
        let counter = |value| match without.iter().any(|it| it.name() == value) {
            true => None,
            false => Some(self.counter(name, help, &[others, &[(label, value)]].concat())),
        };
        let counters = L::names().into_iter().map(counter).collect();
        CounterFamily(counters, PhantomData)
    }

    /// Registers the counters of a metric with the label `status`, one for each of the statuses.
    pub(super) fn statuses(
        &self,
        name: &'static str,
        help: &'static str,
        statuses: &'static [StatusCode],
    ) -> StatusFamily {
        let counter = |status: &'static StatusCode| {
            let counter = self.counter(name, help, &[("status", status.as_str())]);
            (*status, counter)
        };
        StatusFamily(statuses.iter().map(counter).collect())
    }

    pub(super) fn authentication_required(&self, listener: &'static str) -> Gauge {
        self.gauge(
            "sidewire_authentication_required",
            "1 if callers must authenticate, 0 if not.",
            &[("listener", listener)],
        )
    }

    pub(super) fn authentication_failures<L: NamedValues>(
        &self,
        listener: &'static str,
    ) -> CounterFamily<L> {
        self.family_with(
            "sidewire_authentication_failures_total",
            "Clients and backends that failed to authenticate, by listener and reason.",
            "reason",
            &[("listener", listener)],
            &[],
        )
    }
}

const METADATA: Metadata<'static> = Metadata::new("sidewire", Level::INFO, None);

fn series_key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    let labels = labels.iter().map(|(name, value)| Label::new(*name, *value));
    Key::from_parts(name, labels.collect::<Vec<_>>())
}

/// The counters of one metric, one for each name in `L` that can occur. They exist from the
/// start, so that the first increase of each is visible.
pub(super) struct CounterFamily<L>(Vec<Option<Counter>>, PhantomData<fn(&L)>);

impl<L: NamedValues> CounterFamily<L> {
    pub(super) fn increment(&self, value: &L) {
        self.add(value, 1);
    }

    pub(super) fn add(&self, value: &L, count: u64) {
        let counter = self.0.get(value.index()).and_then(Option::as_ref);
        debug_assert!(counter.is_some(), "{} has no counter", value.name());
        if let Some(counter) = counter {
            counter.increment(count);
        }
    }
}

/// The counters of one metric, one for each HTTP status that can occur.
pub(super) struct StatusFamily(Vec<(StatusCode, Counter)>);

impl StatusFamily {
    /// Counts a status, which must be one of those registered.
    pub(super) fn increment(&self, status: StatusCode) {
        let listed = self.0.iter().find(|(listed, _)| *listed == status);
        debug_assert!(listed.is_some(), "the metric lacks the status {status}");
        match listed {
            Some((_, counter)) => counter.increment(1),
            None => tracing::error!(%status, "bug: no metric counts this HTTP status"),
        }
    }
}
