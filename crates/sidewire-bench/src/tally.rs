//! Tracks deliveries: for each connection the order of its events, for each event the
//! number of connections that have not received it. Knows nothing about sockets and clocks.

/// The events posted in a run, and their deliveries.
#[derive(Debug)]
pub(super) struct DeliveryTally {
    /// Number of connections subscribed to each channel now.
    subscribers: Vec<u32>,
    /// The events by number. An event's channel is its number modulo `channels`.
    events: Vec<TalliedEvent>,
    channels: usize,
    incomplete: usize,
    unanswered: usize,
    counts: DeliveryCounts,
}

/// The counts of a run since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct DeliveryCounts {
    /// Events that the target stored.
    pub(super) stored: u64,
    /// Events that the target refused.
    pub(super) refused: u64,
    /// Frames with an event that the connection was due.
    pub(super) deliveries: u64,
    /// Frames with an event that the connection had already received.
    pub(super) duplicated: u64,
    /// Frames with an event that came after a later one.
    pub(super) reordered: u64,
    /// Frames with an event that the connection is not subscribed to, or that
    /// this run has not posted.
    pub(super) foreign: u64,
}

#[derive(Debug, Clone, Copy)]
struct TalliedEvent {
    posted_ns: u64,
    /// Number of connections that have not received it yet.
    owed: u32,
    answer: AnswerState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AnswerState {
    Awaited,
    Stored,
    Refused,
}

/// The progress of a connection through the events of its channel.
#[derive(Debug, Default)]
pub(super) struct DeliveryTrack {
    channel: usize,
    /// The number of the next event of its channel.
    expected: usize,
    /// The numbers before it that have not arrived.
    gaps: Vec<usize>,
}

/// The delivery of an event to a connection that was due it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DueDelivery {
    /// The time at which the event was posted.
    pub(super) posted_ns: u64,
    /// True if every other connection has received the event.
    pub(super) is_last: bool,
}

impl DeliveryTally {
    pub(super) fn new(channels: usize) -> Self {
        Self {
            subscribers: vec![0; channels],
            events: Vec::new(),
            channels: channels.max(1),
            incomplete: 0,
            unanswered: 0,
            counts: DeliveryCounts::default(),
        }
    }

    pub(super) fn counts(&self) -> DeliveryCounts {
        self.counts
    }

    /// Number of events that some connection has not received yet.
    pub(super) fn incomplete(&self) -> usize {
        self.incomplete
    }

    /// Number of events without an answer yet.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Returns the number of the next event.
    pub(super) fn next_number(&self) -> usize {
        self.events.len()
    }

    /// Returns the channel of an event.
    pub(super) fn channel_of(&self, number: usize) -> usize {
        number.checked_rem(self.channels).unwrap_or_default()
    }

    /// Subscribes a connection to a channel: it is due each later event of the channel. A
    /// channel beyond the last has no events.
    pub(super) fn join_channel(&mut self, channel: usize) -> DeliveryTrack {
        let Some(subscribers) = self.subscribers.get_mut(channel) else {
            return DeliveryTrack {
                channel,
                expected: usize::MAX,
                gaps: Vec::new(),
            };
        };
        *subscribers += 1;
        let next = self.events.len();
        let behind = (self.channels + channel - self.channel_of(next)) % self.channels;
        DeliveryTrack {
            channel,
            expected: next + behind,
            gaps: Vec::new(),
        }
    }

    /// Removes a connection, which is due no further events.
    pub(super) fn leave_channel(&mut self, track: &DeliveryTrack) {
        if let Some(subscribers) = self.subscribers.get_mut(track.channel) {
            *subscribers -= 1;
        }
        let ahead = (track.expected..self.events.len()).step_by(self.channels);
        for number in track.gaps.iter().copied().chain(ahead) {
            if let Some(event) = self.events.get_mut(number)
                && event.owed > 0
            {
                event.owed -= 1;
                self.incomplete -= usize::from(event.owed == 0);
            }
        }
    }

    /// Records that an event is posted, and returns its number.
    pub(super) fn record_post(&mut self, posted_ns: u64) -> usize {
        let number = self.events.len();
        let owed = self.subscribers.get(self.channel_of(number));
        let owed = owed.copied().unwrap_or_default();
        self.events.push(TalliedEvent {
            posted_ns,
            owed,
            answer: AnswerState::Awaited,
        });
        self.incomplete += usize::from(owed > 0);
        self.unanswered += 1;
        number
    }

    /// Records the target's answer, and returns the time at which the event was posted.
    pub(super) fn record_answer(&mut self, number: usize, stored: bool) -> Option<u64> {
        let event = self.events.get_mut(number)?;
        if event.answer != AnswerState::Awaited {
            return None;
        }
        self.unanswered -= 1;
        if stored {
            event.answer = AnswerState::Stored;
            self.counts.stored += 1;
        } else {
            event.answer = AnswerState::Refused;
            self.counts.refused += 1;
            self.incomplete -= usize::from(event.owed > 0);
            event.owed = 0;
        }
        Some(event.posted_ns)
    }

    /// Records a received event. Returns `None` if the connection was not due it.
    #[inline]
    pub(super) fn record_delivery(
        &mut self,
        track: &mut DeliveryTrack,
        number: usize,
    ) -> Option<DueDelivery> {
        if number == track.expected {
            track.expected += self.channels;
        } else if !self.record_out_of_order(track, number) {
            return None;
        }
        let Some(event) = self.events.get_mut(number) else {
            self.counts.foreign += 1;
            return None;
        };
        let is_last = event.owed == 1;
        event.owed = event.owed.saturating_sub(1);
        self.incomplete -= usize::from(is_last);
        self.counts.deliveries += 1;
        Some(DueDelivery {
            posted_ns: event.posted_ns,
            is_last,
        })
    }

    /// Records an event that this run has not posted.
    pub(super) fn record_foreign(&mut self) {
        self.counts.foreign += 1;
    }

    /// Handles an event that is not the expected one. Returns true if the connection was
    /// due it.
    #[cold]
    fn record_out_of_order(&mut self, track: &mut DeliveryTrack, number: usize) -> bool {
        if number >= self.events.len() || self.channel_of(number) != track.channel {
            self.counts.foreign += 1;
            return false;
        }
        if number > track.expected {
            let missed = (track.expected..number).step_by(self.channels);
            track.gaps.extend(missed);
            track.expected = number + self.channels;
            return true;
        }
        let Some(gap) = track.gaps.iter().position(|gap| *gap == number) else {
            self.counts.duplicated += 1;
            return false;
        };
        track.gaps.swap_remove(gap);
        self.counts.reordered += 1;
        true
    }

    /// Number of stored events that the connection has not received.
    pub(super) fn count_lost(&self, track: &DeliveryTrack) -> u64 {
        let ahead = (track.expected..self.events.len()).step_by(self.channels);
        let owed = track.gaps.iter().copied().chain(ahead);
        let stored = owed.filter(|number| {
            let event = self.events.get(*number);
            event.is_some_and(|event| event.answer == AnswerState::Stored)
        });
        stored.count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Posts this many events, all of them taken.
    fn posted(tally: &mut DeliveryTally, events: usize) {
        for _ in 0..events {
            let number = tally.record_post(7);
            assert_eq!(tally.record_answer(number, true), Some(7));
        }
    }

    fn receive(tally: &mut DeliveryTally, track: &mut DeliveryTrack, numbers: &[usize]) {
        for number in numbers {
            tally.record_delivery(track, *number);
        }
    }

    #[test]
    fn deliveries_in_order_have_no_faults() {
        let mut tally = DeliveryTally::new(1);
        let (mut a, mut b) = (tally.join_channel(0), tally.join_channel(0));
        posted(&mut tally, 3);
        assert_eq!(tally.incomplete(), 3);
        receive(&mut tally, &mut a, &[0, 1, 2]);
        assert_eq!(tally.incomplete(), 3);
        let delivery = |is_last| {
            Some(DueDelivery {
                posted_ns: 7,
                is_last,
            })
        };
        assert_eq!(tally.record_delivery(&mut b, 0), delivery(true));
        assert_eq!(tally.incomplete(), 2);
        receive(&mut tally, &mut b, &[1, 2]);
        assert_eq!((tally.incomplete(), tally.unanswered()), (0, 0));
        assert_eq!(tally.count_lost(&a) + tally.count_lost(&b), 0);
        let expected = DeliveryCounts {
            stored: 3,
            deliveries: 6,
            ..DeliveryCounts::default()
        };
        assert_eq!(tally.counts(), expected);
    }

    #[test]
    fn each_fault_is_counted_by_its_kind() {
        let faults = |numbers: &[usize]| {
            let mut tally = DeliveryTally::new(1);
            let mut track = tally.join_channel(0);
            posted(&mut tally, 6);
            receive(&mut tally, &mut track, numbers);
            let DeliveryCounts {
                duplicated,
                reordered,
                foreign,
                ..
            } = tally.counts();
            (tally.count_lost(&track), duplicated, reordered, foreign)
        };
        for (numbers, expected) in [
            (&[0, 1, 2, 3, 4, 5][..], (0, 0, 0, 0)),
            (&[0, 1, 3, 4, 5], (1, 0, 0, 0)),
            (&[0, 1, 2, 3], (2, 0, 0, 0)),
            (&[], (6, 0, 0, 0)),
            (&[0, 1, 1, 2, 3, 4, 5], (0, 1, 0, 0)),
            (&[0, 1, 2, 3, 4, 5, 0], (0, 1, 0, 0)),
            (&[0, 2, 1, 3, 4, 5], (0, 0, 1, 0)),
            (&[5, 4, 3, 2, 1, 0], (0, 0, 5, 0)),
            (&[0, 2, 1, 1, 4, 5], (1, 1, 1, 0)),
            (&[0, 1, 2, 3, 4, 5, 6], (0, 0, 0, 1)),
        ] {
            assert_eq!(faults(numbers), expected, "{numbers:?}");
        }
    }

    #[test]
    fn a_channel_gets_every_nth_event() {
        let mut tally = DeliveryTally::new(3);
        posted(&mut tally, 4);
        let mut tracks: Vec<_> = (0..3).map(|channel| tally.join_channel(channel)).collect();
        let outside = tally.join_channel(3);
        posted(&mut tally, 6);
        let first: Vec<_> = tracks.iter().map(|track| track.expected).collect();
        assert_eq!(first, [6, 4, 5]);
        receive(&mut tally, &mut tracks[0], &[6, 9]);
        receive(&mut tally, &mut tracks[1], &[4, 7]);
        receive(&mut tally, &mut tracks[2], &[5, 6]);
        assert_eq!(tally.counts().foreign, 1);
        assert_eq!(tally.incomplete(), 1);
        let lost: Vec<_> = tracks.iter().map(|track| tally.count_lost(track)).collect();
        assert_eq!(lost, [0, 0, 1]);
        assert_eq!(tally.count_lost(&outside), 0);
    }

    #[test]
    fn an_event_refused_or_never_answered_is_not_counted_as_lost() {
        let mut tally = DeliveryTally::new(1);
        let mut track = tally.join_channel(0);
        for stored in [Some(true), Some(false), None, Some(true)] {
            let number = tally.record_post(0);
            if let Some(stored) = stored {
                tally.record_answer(number, stored);
            }
        }
        assert_eq!((tally.incomplete(), tally.unanswered()), (3, 1));
        receive(&mut tally, &mut track, &[0, 3]);
        assert_eq!((tally.incomplete(), tally.count_lost(&track)), (1, 0));
        assert_eq!((tally.counts().stored, tally.counts().refused), (2, 1));
        assert_eq!(tally.record_answer(0, true), None);
    }

    #[test]
    fn a_connection_that_has_left_is_owed_nothing() {
        let mut tally = DeliveryTally::new(1);
        let (mut a, mut b) = (tally.join_channel(0), tally.join_channel(0));
        posted(&mut tally, 4);
        receive(&mut tally, &mut a, &[0, 2]);
        receive(&mut tally, &mut b, &[0, 1, 2]);
        assert_eq!(tally.incomplete(), 2);
        tally.leave_channel(&a);
        assert_eq!(tally.incomplete(), 1);
        receive(&mut tally, &mut b, &[3]);
        assert_eq!(tally.incomplete(), 0);
        posted(&mut tally, 1);
        tally.leave_channel(&b);
        posted(&mut tally, 1);
        assert_eq!(tally.incomplete(), 0);
    }
}
