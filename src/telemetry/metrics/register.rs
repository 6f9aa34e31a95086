//! Registers series with their help texts, and those of one metric together. Knows the names of
//! only those metrics that two listeners share.

use metrics::{Counter, Gauge, Key, KeyName, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;

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

    pub(super) fn family<const N: usize>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &'static str)],
        label: &'static str,
        values: [&'static str; N],
    ) -> CounterFamily {
        self.0
            .describe_counter(KeyName::from(name), None, SharedString::from(help));
        let mut family = CounterFamily {
            name,
            labels: labels_of(labels),
            label,
            counters: Vec::new(),
        };
        family.counters = values
            .map(|value| (value.to_owned(), family.register_series(value, self.0)))
            .into();
        family
    }

    pub(super) fn authentication_required(&self, listener: &'static str) -> Gauge {
        self.gauge(
            "sidewire_authentication_required",
            "1 if callers must authenticate, 0 if not.",
            &[("listener", listener)],
        )
    }

    pub(super) fn authentication_failures<const N: usize>(
        &self,
        listener: &'static str,
        reasons: [&'static str; N],
    ) -> CounterFamily {
        self.family(
            "sidewire_authentication_failures_total",
            "Clients and backends that failed to authenticate, by listener and reason.",
            &[("listener", listener)],
            "reason",
            reasons,
        )
    }
}

const METADATA: Metadata<'static> = Metadata::new("sidewire", Level::INFO, None);

fn series_key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels_of(labels))
}

fn labels_of(labels: &[(&'static str, &'static str)]) -> Vec<Label> {
    labels
        .iter()
        .map(|(name, value)| Label::new(*name, *value))
        .collect()
}

/// A counter with a label that has values known in advance. The series of each value exists from
/// the start, so that its first increase is visible.
pub(super) struct CounterFamily {
    name: &'static str,
    labels: Vec<Label>,
    label: &'static str,
    counters: Vec<(String, Counter)>,
}

impl CounterFamily {
    pub(super) fn increment(&self, value: &str, recorder: &PrometheusRecorder) {
        match self.counters.iter().find(|(known, _)| known == value) {
            Some((_, counter)) => counter.increment(1),
            None => self.register_series(value, recorder).increment(1),
        }
    }

    fn register_series(&self, value: &str, recorder: &PrometheusRecorder) -> Counter {
        let mut labels = self.labels.clone();
        labels.push(Label::new(self.label, value.to_owned()));
        recorder.register_counter(&Key::from_parts(self.name, labels), &METADATA)
    }
}
