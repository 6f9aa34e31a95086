//! The metrics of a relay at one moment, from the text format of Prometheus.

use std::collections::HashMap;

use tokio::time::Instant;

/// One scrape: the value of each series, by its name with its labels as they are written.
#[derive(Debug, Clone)]
pub(super) struct Scrape {
    pub(super) at: Instant,
    series: HashMap<String, f64>,
}

impl Scrape {
    /// Parses a scrape that was made now. Lines that are not series are ignored.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self {
            at: Instant::now(),
            series: series.collect(),
        }
    }

    /// Returns the value of a series without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.series.get(name).copied()
    }

    /// Returns the sum of all series of a metric with labels.
    pub(super) fn sum(&self, metric: &str) -> Option<f64> {
        let values = self.labelled(metric).map(|(_, value)| value);
        values.reduce(|sum, value| sum + value)
    }

    /// Returns the values of a metric with this one label, by the value of the label.
    pub(super) fn by_label<'a>(
        &'a self,
        metric: &'a str,
        label: &'a str,
    ) -> impl Iterator<Item = (String, f64)> + 'a {
        self.labelled(metric).filter_map(move |(labels, value)| {
            let quoted = labels.strip_prefix(label)?.strip_prefix("=\"")?;
            Some((unescape(quoted.strip_suffix('"')?), value))
        })
    }

    /// Returns the series of a metric with labels: what is between the braces, and the value.
    fn labelled<'a>(&'a self, metric: &'a str) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        self.series.iter().filter_map(move |(name, value)| {
            let labels = name.strip_prefix(metric)?.strip_prefix('{')?;
            Some((labels.strip_suffix('}')?, *value))
        })
    }

    /// Returns the upper bounds of a histogram's buckets, in order, each with the number of
    /// observations up to it.
    pub(super) fn buckets(&self, histogram: &str) -> Vec<(f64, f64)> {
        let metric = format!("{histogram}_bucket");
        let mut buckets: Vec<_> = self
            .by_label(&metric, "le")
            .filter_map(|(bound, count)| {
                // Rust reads the `+Inf` of Prometheus.
                Some((bound.parse().ok()?, count))
            })
            .collect();
        buckets.sort_by(|(a, _), (b, _)| f64::total_cmp(a, b));
        buckets
    }
}

/// Returns the value of a series that counts something, as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast saturates"
)]
pub(super) fn whole(value: f64) -> u64 {
    value as u64
}

/// Undoes the escapes of a label's value.
fn unescape(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    text
}

/// Returns the upper bound of the bucket in which this share of the observations between two
/// scrapes ends; `None` if there were none, or if they are beyond the last bound.
pub(super) fn quantile(before: &[(f64, f64)], after: &[(f64, f64)], share: f64) -> Option<f64> {
    let earlier: HashMap<u64, f64> = before
        .iter()
        .map(|(bound, count)| (bound.to_bits(), *count))
        .collect();
    let new = |(bound, count): &(f64, f64)| {
        let earlier = earlier.get(&bound.to_bits()).copied().unwrap_or(0.0);
        (*bound, count - earlier)
    };
    let new: Vec<_> = after.iter().map(new).collect();
    let (_, all) = *new.last()?;
    if all <= 0.0 {
        return None;
    }
    let (bound, _) = new.into_iter().find(|(_, count)| *count >= share * all)?;
    bound.is_finite().then_some(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP a Something.\n# TYPE a gauge\na 3\n\
        b{tenant=\"x\\\"y\\\\\"} 4\nb{tenant=\"other\"} 5\n\
        c_bucket{le=\"0.001\"} 1\nc_bucket{le=\"+Inf\"} 9\nc_bucket{le=\"0.01\"} 8\n";

    #[tokio::test(start_paused = true)]
    async fn series_are_found_by_name_and_label() {
        let scrape = Scrape::parse(TEXT);
        assert_eq!(scrape.value("a"), Some(3.0));
        assert_eq!(scrape.value("b"), None);
        assert_eq!(scrape.sum("b"), Some(9.0));
        assert_eq!(scrape.sum("a"), None);
        let mut tenants: Vec<_> = scrape.by_label("b", "tenant").collect();
        tenants.sort_by(|(a, _), (b, _)| a.cmp(b));
        let expected = [("other".to_owned(), 5.0), ("x\"y\\".to_owned(), 4.0)];
        assert_eq!(tenants, expected);
        assert_eq!(
            scrape.buckets("c"),
            [(0.001, 1.0), (0.01, 8.0), (f64::INFINITY, 9.0)]
        );
    }

    #[test]
    fn a_quantile_is_of_the_observations_between_two_scrapes() {
        let before = [(0.001, 10.0), (0.01, 10.0), (f64::INFINITY, 10.0)];
        let after = [(0.001, 60.0), (0.01, 109.0), (f64::INFINITY, 110.0)];
        assert_eq!(quantile(&before, &after, 0.5), Some(0.001));
        assert_eq!(quantile(&before, &after, 0.99), Some(0.01));
        assert_eq!(
            quantile(&before, &after, 1.0),
            None,
            "beyond the last bound"
        );
        assert_eq!(quantile(&before, &before, 0.5), None, "nothing observed");
        assert_eq!(quantile(&[], &[], 0.5), None);
    }
}
