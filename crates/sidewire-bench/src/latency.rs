//! Latency histograms with three significant digits.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The latencies recorded in a run, in nanoseconds.
#[derive(Debug)]
pub(super) struct LatencyHistograms {
    /// Of each frame: from the POST to its arrival.
    pub(super) each: Histogram<u64>,
    /// Of each event: from the POST to the arrival of its last frame.
    pub(super) last: Histogram<u64>,
    /// Of each call: from the POST to its answer.
    pub(super) answer: Histogram<u64>,
}

/// The longest latency that is recorded as such: one hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// The significant digits of the histograms.
const DIGITS: u8 = 3;

/// The percentiles of a histogram, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The maximum.
    pub max: f64,
}

impl LatencyHistograms {
    pub(super) fn new() -> Result<Self, hdrhistogram::CreationError> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS);
        Ok(Self {
            each: histogram()?,
            last: histogram()?,
            answer: histogram()?,
        })
    }
}

/// Returns the percentiles; `None` if the histogram is empty.
pub(super) fn percentiles(histogram: &Histogram<u64>) -> Option<Percentiles> {
    let micros = |ns: u64| ns as f64 / 1000.0;
    let at = |quantile| micros(histogram.value_at_quantile(quantile));
    (!histogram.is_empty()).then(|| Percentiles {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: micros(histogram.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_microseconds_with_three_significant_digits() {
        let mut latencies = LatencyHistograms::new().unwrap();
        assert_eq!(percentiles(&latencies.each), None);
        for micros in 1..=1000 {
            latencies.each.saturating_record(micros * 1000);
        }
        let found = percentiles(&latencies.each).unwrap();
        for (found, expected) in [
            (found.p50, 500.0),
            (found.p99, 990.0),
            (found.p999, 999.0),
            (found.max, 1000.0),
        ] {
            assert!(
                (found / expected - 1.0_f64).abs() < 0.002,
                "{found} {expected}"
            );
        }
    }
}
