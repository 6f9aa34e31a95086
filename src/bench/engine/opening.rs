//! Opens clients, a limited number at a time, until each is subscribed or has failed.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use mio::{Interest, Token};

use super::{Engine, NAP};
use crate::bench::{
    BenchError,
    clients::{Client, Ended},
    link::Link,
};

/// The time within which a client must be subscribed.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of opening a set of clients.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::bench) struct Opened {
    pub(in crate::bench) connects: u64,
    pub(in crate::bench) failures: u64,
    pub(in crate::bench) took: Duration,
}

/// The clients that are being opened.
#[derive(Debug, Default)]
pub(super) struct Opening {
    /// Clients and their start times, oldest first.
    begun: VecDeque<(usize, Instant)>,
    under_way: usize,
    outcome: Opened,
}

impl Opened {
    pub(in crate::bench) fn add(&mut self, other: Self) {
        self.connects += other.connects;
        self.failures += other.failures;
        self.took += other.took;
    }
}

impl Engine<'_> {
    /// Opens these clients, at most `concurrency` at a time, and waits until each is
    /// subscribed or has failed.
    pub(in crate::bench) fn open(
        &mut self,
        connections: Range<usize>,
        concurrency: usize,
    ) -> Result<Opened, BenchError> {
        let begun = Instant::now();
        let total = connections.len() as u64;
        self.opening = Opening::default();
        let mut waiting = connections;
        loop {
            while self.opening.under_way < concurrency
                && let Some(connection) = waiting.next()
            {
                self.begin(connection);
            }
            // The next token would be refused too.
            if let Some(answer) = self.unauthorized.take() {
                return Err(BenchError::Unauthorized(answer));
            }
            let Opened {
                connects, failures, ..
            } = self.opening.outcome;
            if connects + failures == total {
                break;
            }
            self.tell("connecting", connects + failures, total);
            self.turn(Instant::now() + NAP)?;
            self.give_up_on_the_slow();
        }
        let mut outcome = std::mem::take(&mut self.opening).outcome;
        outcome.took = begun.elapsed();
        Ok(outcome)
    }

    pub(super) fn on_subscribed(&mut self) {
        self.opening.under_way -= 1;
        self.opening.outcome.connects += 1;
    }

    pub(super) fn on_failure(&mut self, error: &Ended) {
        self.opening.under_way -= 1;
        self.opening.outcome.failures += 1;
        self.note(error);
    }

    fn begin(&mut self, connection: usize) {
        self.opening.under_way += 1;
        match self.try_begin(connection) {
            Ok(()) => {
                let begun = (connection, Instant::now());
                self.opening.begun.push_back(begun);
            }
            Err(error) => self.on_failure(&error.into()),
        }
    }

    fn try_begin(&mut self, connection: usize) -> io::Result<()> {
        let mut link = Link::open(&self.target.clients, self.sources, connection)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut link.stream, Token(connection), interest)?;
        if let Some(slot) = self.clients.get_mut(connection) {
            *slot = Some(Client::new(link));
        }
        Ok(())
    }

    fn give_up_on_the_slow(&mut self) {
        while let Some((connection, begun)) = self.opening.begun.front().copied() {
            let client = self.clients.get(connection).and_then(Option::as_ref);
            let is_opening = client.is_some_and(|client| !client.is_subscribed());
            if is_opening && begun.elapsed() < OPENING_TIMEOUT {
                return;
            }
            self.opening.begun.pop_front();
            if is_opening {
                self.close(connection..connection + 1);
                self.on_failure(&Ended::TimedOut(OPENING_TIMEOUT.as_secs()));
            }
        }
    }
}
