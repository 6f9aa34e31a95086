//! Preconditions of an append: the last event that a backend expects a topic to have. Knows no
//! HTTP.

use std::str::FromStr;

use sidewire_protocol::{Epoch, Position, Topic};

/// A condition on a topic's last event that must hold for an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendCondition {
    /// The topic.
    pub topic: Topic,
    /// The expected last event.
    pub last: ExpectedLast,
}

/// The last event that a backend expects a topic to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedLast {
    /// The last event has this position.
    At(Position),
    /// The log has this epoch, and no event of the topic.
    NoneIn(Epoch),
    /// There is no event of the topic, with or without a log.
    None,
}

/// The reason for which a text is not a valid expectation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExpectedLastError {
    /// The text is neither a position nor 0.
    #[error("is neither `<epoch>:<offset>` nor `0`")]
    Malformed,
    /// The part before the colon is not an epoch.
    #[error("has no valid epoch before the offset: 32 lower-case hexadecimal digits")]
    Epoch,
    /// The part after the colon is not an offset.
    #[error("has no valid offset after the epoch: a decimal number")]
    Offset,
}

impl FromStr for ExpectedLast {
    type Err = ExpectedLastError;

    fn from_str(text: &str) -> Result<Self, ExpectedLastError> {
        if text == "0" {
            return Ok(Self::None);
        }
        let (epoch, offset) = text.split_once(':').ok_or(ExpectedLastError::Malformed)?;
        let epoch = epoch.parse().map_err(|_| ExpectedLastError::Epoch)?;
        // `parse` alone would accept a plus sign.
        if !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ExpectedLastError::Offset);
        }
        match offset.parse().map_err(|_| ExpectedLastError::Offset)? {
            0 => Ok(Self::NoneIn(epoch)),
            offset => Ok(Self::At(Position { epoch, offset })),
        }
    }
}

/// A condition that does not hold, with the actual state of its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnmetCondition {
    /// The topic.
    pub topic: Topic,
    /// The log's epoch; `None` if the tenant has no log.
    pub epoch: Option<Epoch>,
    /// The position of the topic's last event; `None` if the log has none.
    pub position: Option<Position>,
}

/// Returns the conditions that do not hold, in order, for a log of this epoch, or for none.
/// `last_of` returns the position of a topic's last event.
#[must_use]
pub fn find_unmet(
    conditions: &[AppendCondition],
    epoch: Option<Epoch>,
    mut last_of: impl FnMut(&Topic) -> Option<Position>,
) -> Vec<UnmetCondition> {
    let unmet = |condition: &AppendCondition| {
        let position = last_of(&condition.topic);
        let holds = match condition.last {
            ExpectedLast::At(expected) => position == Some(expected),
            ExpectedLast::NoneIn(expected) => epoch == Some(expected) && position.is_none(),
            ExpectedLast::None => position.is_none(),
        };
        (!holds).then(|| UnmetCondition {
            topic: condition.topic.clone(),
            epoch,
            position,
        })
    };
    conditions.iter().filter_map(unmet).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::{
        event::tests::draft,
        log::{EvictedEvents, Log, LogAccounts, LogWindow},
    };

    const EPOCH: Epoch = Epoch::from_bits(0xab);
    const OTHER: Epoch = Epoch::from_bits(0xcd);

    fn at(epoch: Epoch, offset: u64) -> ExpectedLast {
        ExpectedLast::At(Position { epoch, offset })
    }

    fn holds(log: Option<&Log>, topic: &str, last: ExpectedLast) -> bool {
        let topic = Topic::parse(topic).unwrap();
        unmet_of(&[AppendCondition { topic, last }], log).is_empty()
    }

    fn unmet_of(conditions: &[AppendCondition], log: Option<&Log>) -> Vec<UnmetCondition> {
        match log {
            None => find_unmet(conditions, None, |_| None),
            Some(log) => find_unmet(conditions, Some(log.head().epoch), |topic| {
                let of_topic = log
                    .events_after(0)
                    .filter(|event| event.topics().contains(topic));
                of_topic.map(|event| event.position()).last()
            }),
        }
    }

    fn log() -> Log {
        let window = LogWindow {
            events: 3,
            bytes: 1 << 20,
            age: Duration::from_secs(60),
        };
        let head = Position {
            epoch: EPOCH,
            offset: 0,
        };
        Log::new(head, window, LogAccounts::default())
    }

    #[test]
    fn a_condition_expects_a_position_or_no_event() {
        let epoch = "000000000000000000000000000000ab";
        for (text, expected) in [
            ("0", Ok(ExpectedLast::None)),
            (&*format!("{epoch}:0"), Ok(ExpectedLast::NoneIn(EPOCH))),
            (&*format!("{epoch}:42"), Ok(at(EPOCH, 42))),
            (&*format!("{epoch}:{}", u64::MAX), Ok(at(EPOCH, u64::MAX))),
            ("", Err(ExpectedLastError::Malformed)),
            ("42", Err(ExpectedLastError::Malformed)),
            ("00", Err(ExpectedLastError::Malformed)),
            (epoch, Err(ExpectedLastError::Malformed)),
            (":42", Err(ExpectedLastError::Epoch)),
            ("ab:42", Err(ExpectedLastError::Epoch)),
            (&*format!("{epoch}:"), Err(ExpectedLastError::Offset)),
            (&*format!("{epoch}:+1"), Err(ExpectedLastError::Offset)),
            (&*format!("{epoch}:-1"), Err(ExpectedLastError::Offset)),
            (&*format!("{epoch}:1:1"), Err(ExpectedLastError::Offset)),
            (
                &*format!("{epoch}:18446744073709551616"),
                Err(ExpectedLastError::Offset),
            ),
        ] {
            assert_eq!(text.parse(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_condition_depends_only_on_the_last_event_of_its_topic() {
        let mut log = log();
        for topics in [&["a:1"][..], &["a:1", "b:2"], &["c:3"]] {
            log.append(
                draft("m", topics),
                Instant::now(),
                &mut EvictedEvents::new(),
            );
        }
        // The topic's own last event, of this epoch.
        for (topic, offset) in [("a:1", 2), ("b:2", 2), ("c:3", 3)] {
            for tried in 1..5 {
                let last = at(EPOCH, tried);
                assert_eq!(holds(Some(&log), topic, last), tried == offset);
            }
            for last in [
                at(OTHER, offset),
                ExpectedLast::NoneIn(EPOCH),
                ExpectedLast::None,
            ] {
                assert!(!holds(Some(&log), topic, last), "{topic} {last:?}");
            }
        }
        // A topic without an event.
        assert!(holds(Some(&log), "d:4", ExpectedLast::None));
        assert!(holds(Some(&log), "d:4", ExpectedLast::NoneIn(EPOCH)));
        assert!(!holds(Some(&log), "d:4", ExpectedLast::NoneIn(OTHER)));
        assert!(!holds(Some(&log), "d:4", at(EPOCH, 3)));

        // The last event of b:2 leaves the window.
        for _ in 0..2 {
            log.append(
                draft("m", &["a:1"]),
                Instant::now(),
                &mut EvictedEvents::new(),
            );
        }
        assert!(!holds(Some(&log), "b:2", at(EPOCH, 2)));
        assert!(holds(Some(&log), "b:2", ExpectedLast::NoneIn(EPOCH)));
        assert!(holds(Some(&log), "b:2", ExpectedLast::None));
    }

    #[test]
    fn without_a_log_only_the_expectation_of_no_event_holds() {
        assert!(holds(None, "a:1", ExpectedLast::None));
        assert!(!holds(None, "a:1", ExpectedLast::NoneIn(EPOCH)));
        assert!(!holds(None, "a:1", at(EPOCH, 1)));
    }

    #[test]
    fn each_unmet_condition_is_reported_with_the_current_position() {
        let topic = |text| Topic::parse(text).unwrap();
        let condition = |text, last| AppendCondition {
            topic: topic(text),
            last,
        };
        let conditions = [
            condition("a:1", at(EPOCH, 9)),
            condition("b:2", ExpectedLast::None),
            condition("b:2", at(EPOCH, 1)),
        ];
        let mut log = log();
        let event = log.append(
            draft("m", &["a:1"]),
            Instant::now(),
            &mut EvictedEvents::new(),
        );
        let told = |topic, position| UnmetCondition {
            topic,
            epoch: Some(EPOCH),
            position,
        };
        assert_eq!(
            unmet_of(&conditions, Some(&log)),
            [
                told(topic("a:1"), Some(event.position())),
                told(topic("b:2"), None)
            ]
        );
        let of_none = unmet_of(&conditions, None);
        assert!(of_none.iter().all(|it| it.epoch.is_none()));
        assert_eq!(of_none.len(), 2);
    }
}
