//! Simulated clients. Each connects, subscribes, stalls, is cut off, reconnects, resumes by the
//! contract's rule, and records what it sends and receives.

use std::{rc::Rc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    dice::Dice,
    history::{CompletenessClaim, History, Timestamp},
    known::{ResumeModel, SubscriptionGroup},
    pipe::{LinkKind, link},
    record::ConnectionRecord,
    session::ClientSession,
    socket::ClientSocket,
    stage::{PhaseSwitch, StagePhase},
    tokens::{ClientToken, TopicGrant},
    topics::{TopicBits, USERS},
    world::{BEGIN, SHARDS, SimulatedWorld},
};

pub(super) struct SimulatedClient {
    pub(super) world: Rc<SimulatedWorld>,
    pub(super) history: Rc<History>,
    pub(super) dice: Dice,
    pub(super) stage: Rc<PhaseSwitch>,
    pub(super) number: usize,
    pub(super) tenant: usize,
    /// True if it disconnects and reconnects while its shard's inbox is held up.
    pub(super) is_restless: bool,
    /// True if it speaks JSON, on all of its connections.
    pub(super) speaks_json: bool,
    /// The topics that its tokens subscribe to, if they say so.
    pub(super) topics_of_token: Option<TopicBits>,
    /// The shard of its last connection.
    pub(super) shard: usize,
    pub(super) known: ResumeModel,
}

impl SimulatedClient {
    pub(super) fn user(&self) -> usize {
        self.number % USERS
    }

    /// Connects and disconnects until the simulation ends.
    pub(super) async fn run(mut self) {
        sleep(self.dice.millis(0..2000)).await;
        loop {
            let phase = self.stage.phase();
            match phase {
                StagePhase::Chaos | StagePhase::Quiet => self.connect().await,
                StagePhase::Drain | StagePhase::Over => break,
            }
            let pause = match self.dice.weighted(&[30, 50, 20]) {
                _ if self.is_restless => self.dice.millis(2..20),
                0 => Duration::ZERO,
                1 => self.dice.millis(1..500),
                _ => self.dice.millis(500..4000),
            };
            tokio::select! {
                biased;
                () = self.stage.left(phase) => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn connect(&mut self) {
        let phase = self.stage.phase();
        let is_quiet = phase != StagePhase::Chaos;
        let asked = self.history.now();
        let lifetime = match self.dice.percent(12) && !is_quiet {
            true => self.dice.within(1..5) as u64,
            false => 3600,
        };
        let token = ClientToken {
            tenant: self.tenant,
            user: self.user(),
            expires_at: BEGIN + Duration::from_secs(asked.time.as_secs() + lifetime),
            grant: TopicGrant::of_user(self.user()),
            claim: self.topics_of_token,
        };
        let (ours, theirs, link) = link(LinkKind::drawn(&self.dice, self.is_restless));
        if self.dice.percent(50) && !self.is_restless {
            self.shard = self.dice.below(SHARDS);
        }
        let shard = self.shard;
        self.history.notice_first_connection(self.tenant, shard);
        self.world.shards[shard].serve_client(theirs);
        let pieces = [64 * 1024, 64 * 1024, 100, 1000];
        let mut socket = ClientSocket::new(ours, *self.dice.pick(&pieces));
        let signed = self.world.token(&token);
        let subprotocol = match self.speaks_json {
            true => "sidewire.v1.json",
            false => "sidewire.v1.protobuf",
        };
        let shaken = socket.shake_hands(&signed, subprotocol);
        let status = timeout(Duration::from_secs(15), shaken).await;
        let status = status.unwrap_or_default();
        self.history.trace(&(self.number, status));
        if status != 101 {
            self.history.count("handshake refused");
            return;
        }
        let connection = self.opened(asked, &token, shard);
        let session = ClientSession {
            socket,
            link,
            connection,
            requests: 0,
            stalled_until: Instant::now(),
            pause: if self.dice.percent(40) && !is_quiet {
                self.dice.millis(1..120)
            } else {
                Duration::ZERO
            },
            next_act: Instant::now(),
            has_closed: false,
            has_shown: false,
            phase,
            client: self,
        };
        session.run().await;
        self.claim_all();
    }

    fn opened(&self, asked: Timestamp, token: &ClientToken, shard: usize) -> usize {
        let opened = self.history.now();
        let mut connections = self.history.connections.borrow_mut();
        connections.push(ConnectionRecord {
            client: self.number,
            tenant: self.tenant,
            user: self.user(),
            speaks_json: self.speaks_json,
            shard,
            asked,
            opened,
            token: *token,
            sent: Vec::new(),
            heard: Vec::new(),
            signs: vec![opened.time],
            is_held: false,
            is_cut: false,
            end: None,
        });
        connections.len() - 1
    }

    /// Returns true if its shard's inbox is held up while a call for its tenant is running.
    pub(super) fn should_flee(&self) -> bool {
        let shard = &self.world.shards[self.shard];
        shard.inbox_gate.is_closed() && self.history.is_posting(self.tenant)
    }

    fn claim_all(&self) {
        self.claim(self.known.groups.clone());
    }

    /// Records the ranges of events that it believes to have received completely.
    pub(super) fn claim(&self, groups: Vec<SubscriptionGroup>) {
        let when = self.history.now();
        let claims = groups.into_iter().map(|group| CompletenessClaim {
            client: self.number,
            tenant: self.tenant,
            topics: group.topics,
            from: group.from,
            to: group.at,
            when,
        });
        self.history.claims.borrow_mut().extend(claims);
    }
}
