//! Whatever the order of events, the client sees whole frames, with events and answers in order
//! and each once, and the counters add up.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::sleep;

use crate::connection::{
    testing::{ConnectionFixture, FrameClient, event, settle, simulate},
    wire_testing::{
        BINARY, CONTINUATION, ReceivedFrame, frame, ping, subscribe, subscribe_envelope,
    },
};

#[derive(Debug, Clone)]
enum Step {
    /// The client reads this many bytes.
    Read(usize),
    /// The client sends a ping with this many bytes.
    Ping(usize),
    /// The client subscribes, in one frame.
    Subscribe,
    /// The client subscribes in fragments, with a ping between them.
    SubscribeInFragments,
    /// The hub delivers a batch of events of these sizes.
    Publish(Vec<usize>),
    /// This many milliseconds pass.
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop::collection::vec(prop_oneof![0..60_usize, 100..300_usize], 1..4);
    let step = prop_oneof![
        6 => prop_oneof![1..4_usize, 1..200_usize].prop_map(Step::Read),
        2 => (4..60_usize).prop_map(Step::Ping),
        2 => Just(Step::Subscribe),
        1 => Just(Step::SubscribeInFragments),
        3 => sizes.prop_map(Step::Publish),
        1 => (0..2_500_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..80)
}

/// The client's part of a schedule.
struct Player {
    client: FrameClient,
    unsent: Vec<u8>,
    pings: u32,
    subscribes: usize,
    heard: Vec<ReceivedFrame>,
}

impl Player {
    fn ping(&mut self, len: usize) {
        self.pings += 1;
        let mut payload = self.pings.to_be_bytes().to_vec();
        payload.resize(len.max(4), 0xee);
        self.unsent.extend(ping(&payload));
    }

    fn subscribe_id(&mut self) -> String {
        self.subscribes += 1;
        self.subscribes.to_string()
    }

    async fn play(&mut self, fixture: &ConnectionFixture, step: Step) {
        match step {
            Step::Read(max) => self.read(max).await,
            Step::Ping(len) => self.ping(len),
            Step::Subscribe => {
                let id = self.subscribe_id();
                self.unsent.extend(subscribe(&id, "project:p"));
            }
            Step::SubscribeInFragments => {
                let envelope = subscribe_envelope(&self.subscribe_id(), "project:q");
                let (start, end) = envelope.split_at(envelope.len() / 2);
                self.unsent.extend(frame(BINARY, false, start));
                self.ping(10);
                self.unsent.extend(frame(CONTINUATION, true, end));
            }
            Step::Publish(sizes) => {
                fixture.publish(sizes.into_iter().map(event)).await;
            }
            Step::Wait(millis) => sleep(Duration::from_millis(millis)).await,
        }
        let sent = self.client.send_some(&self.unsent).await;
        self.unsent.drain(..sent);
        settle().await;
        fixture.check_sums();
    }

    async fn read(&mut self, max: usize) {
        self.client.read_some(max).await;
        while let Some(heard) = self.client.next_read() {
            self.heard.push(heard);
        }
    }

    /// Reads and sends until nothing changes any more.
    async fn finish(&mut self, fixture: &ConnectionFixture) {
        let mut still = 0;
        while still < 3 {
            let before = (self.unsent.len(), self.client.read_some(1000).await);
            self.play(fixture, Step::Read(1000)).await;
            let moved = before != (self.unsent.len(), 0);
            still = if moved { 0 } else { still + 1 };
        }
    }
}

fn run(steps: Vec<Step>, buffer: usize, outbox_frames: usize) {
    simulate(async {
        let fixture =
            ConnectionFixture::with_settings(|config| config.limits.outbox_frames = outbox_frames);
        let mut player = Player {
            client: fixture.connect(buffer),
            unsent: Vec::new(),
            pings: 0,
            subscribes: 0,
            heard: Vec::new(),
        };
        let mut published = 0;
        for step in steps {
            if let Step::Publish(sizes) = &step {
                published += sizes.len();
            }
            player.play(&fixture, step).await;
        }
        player.finish(&fixture).await;
        judge(&fixture, &player, published);

        let was_told = matches!(player.heard.last(), Some(ReceivedFrame::Close(..)));
        let Player { mut client, .. } = player;
        let was_cut_off = !client.is_served() && !was_told;
        client.half_close().await;
        assert_eq!(client.wait_for_end().await.was_reset, was_cut_off);
        fixture.check_nothing_is_left();
    });
}

fn judge(fixture: &ConnectionFixture, player: &Player, published: usize) {
    let (mut offsets, mut confirmed, mut pongs, mut close) = (vec![], vec![], vec![], None);
    for heard in &player.heard {
        assert_eq!(close, None, "something came after the Close");
        match heard {
            ReceivedFrame::Event(offset) => offsets.push(usize::try_from(*offset).unwrap()),
            ReceivedFrame::Subscribed(id) => confirmed.push(id.parse::<usize>().unwrap()),
            ReceivedFrame::Pong(payload) => {
                pongs.push(u32::from_be_bytes(*payload.first_chunk().unwrap()));
            }
            ReceivedFrame::Close(code, _) => close = Some(*code),
            ReceivedFrame::Refused(_)
            | ReceivedFrame::Resumed(..)
            | ReceivedFrame::Unsubscribed(_)
            | ReceivedFrame::Answered(_)
            | ReceivedFrame::Ping => {
                panic!("nobody asked for it: {heard:?}")
            }
        }
    }
    assert_eq!(offsets, (1..=offsets.len()).collect::<Vec<_>>());
    assert_eq!(confirmed, (1..=confirmed.len()).collect::<Vec<_>>());
    assert!(pongs.is_sorted_by(|a, b| a < b), "{pongs:?}");
    assert!(pongs.last().is_none_or(|last| *last <= player.pings));

    let tally = fixture.tally();
    if player.client.is_served() && close.is_none() {
        assert_eq!(offsets.len(), published);
        assert_eq!(confirmed.len(), player.subscribes);
        assert_eq!(pongs.last().copied().unwrap_or(0), player.pings);
        assert!(!player.client.is_torn());
        assert_eq!(tally.written.get(), published as u64);
    } else if close.is_some() {
        assert_eq!(close, Some(4003));
        assert!(tally.dropped_slow.get() > 0);
        assert!(!player.client.is_torn());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn frames_are_whole_and_in_order_whatever_happens(
        steps in steps(),
        buffer in 16..64_usize,
        outbox_frames in prop_oneof![Just(1000_usize), 1..12_usize],
    ) {
        run(steps, buffer, outbox_frames);
    }
}
