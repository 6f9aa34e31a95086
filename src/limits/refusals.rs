//! Counts the refusals of one connection within a minute.

use std::{collections::VecDeque, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

const A_MINUTE: Duration = Duration::from_mins(1);

/// The times at which a connection was refused. Allocates nothing before the first refusal.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "most connections are never refused; a pointer is smaller than a four-word VecDeque"
)]
pub struct RefusalHistory(Option<Box<VecDeque<Instant>>>);

impl RefusalHistory {
    /// Records a refusal at `now`; returns true if that makes `max` refusals within a minute.
    pub fn record(&mut self, now: Instant, max: NonZeroU32) -> bool {
        let times = self.0.get_or_insert_default();
        while times
            .front()
            .is_some_and(|time| now.saturating_duration_since(*time) >= A_MINUTE)
        {
            times.pop_front();
        }
        times.push_back(now);
        let max = usize::try_from(max.get()).unwrap_or(usize::MAX);
        times.len() >= max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_within_any_minute_count_and_older_ones_do_not() {
        let (start, max) = (Instant::now(), NonZeroU32::new(3).unwrap());
        let mut refusals = RefusalHistory::default();
        let mut at = |secs: f64| refusals.record(start + Duration::from_secs_f64(secs), max);
        assert_eq!([at(0.0), at(50.0)], [false; 2]);
        // The first refusal is a minute ago.
        assert!(!at(60.0));
        assert!(at(109.9));
        assert!(!at(170.0));
    }

    #[test]
    fn a_limit_of_one_is_reached_by_the_first_refusal() {
        assert!(RefusalHistory::default().record(Instant::now(), NonZeroU32::MIN));
    }
}
