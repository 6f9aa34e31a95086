//! The topics of a run, which of them receive events, and the topic of each connection.

use super::{BenchPlan, Scenario, TargetProtocol};

/// Number of subscribers of the published topic in the scenario `growth`.
const GROWTH_SUBSCRIBERS: usize = 100;

/// A channel is a topic of a tenant. Events go to the first `published` channels, round
/// robin.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChannelLayout {
    pub(super) published: usize,
    pub(super) subscribed: usize,
    /// Number of connections on the first channel.
    on_first: usize,
}

impl ChannelLayout {
    pub(super) fn from_plan(plan: &BenchPlan) -> Self {
        let topics = plan.scenario.fanout().topics;
        let tenants = match &plan.target.speech {
            TargetProtocol::Relay(relay) => relay.tenants,
            TargetProtocol::Floor(_) => 1,
        };
        let each = topics.max(tenants).max(1);
        match plan.scenario {
            Scenario::Growth { few, .. } => Self {
                published: 1,
                subscribed: topics,
                on_first: GROWTH_SUBSCRIBERS.min(few),
            },
            Scenario::Idle { .. } | Scenario::Connect { .. } => Self {
                published: 0,
                subscribed: each,
                on_first: 1,
            },
            _ => Self {
                published: each,
                subscribed: each,
                on_first: 1,
            },
        }
    }

    pub(super) fn of_connection(&self, connection: usize) -> usize {
        let beyond_first = (connection + 1).saturating_sub(self.on_first);
        beyond_first
            .checked_rem(self.subscribed)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_assigned_to_the_topics_round_robin() {
        for (topics, on_first, expected) in [
            (1, 1, [0, 0, 0, 0, 0, 0]),
            (3, 1, [0, 1, 2, 0, 1, 2]),
            (6, 1, [0, 1, 2, 3, 4, 5]),
            (6, 4, [0, 0, 0, 0, 1, 2]),
        ] {
            let channels = ChannelLayout {
                published: topics,
                subscribed: topics,
                on_first,
            };
            let dealt: Vec<_> = (0..6).map(|it| channels.of_connection(it)).collect();
            assert_eq!(dealt, expected);
        }
    }
}
