//! Opens clients, a limited number at a time, until each is subscribed or has failed.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    time::{Duration, Instant},
};

use mio::{Interest, Token};

use super::{BenchEngine, NAP};
use crate::{
    BenchError,
    clients::{BenchClient, ClientFailure},
    link::TargetLink,
};

/// The time within which a client must be subscribed.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// The outcome of opening a set of clients.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OpenOutcome {
    pub(crate) connects: u64,
    pub(crate) failures: u64,
    pub(crate) took: Duration,
}

/// The clients that are being opened.
#[derive(Debug, Default)]
pub(super) struct OpenProgress {
    /// Clients and their start times, oldest first.
    begun: VecDeque<(usize, Instant)>,
    under_way: usize,
    outcome: OpenOutcome,
}

impl OpenOutcome {
    pub(crate) fn add(&mut self, other: Self) {
        self.connects += other.connects;
        self.failures += other.failures;
        self.took += other.took;
    }
}

impl BenchEngine<'_> {
    /// Opens these clients, at most `concurrency` at a time, and waits until each is
    /// subscribed or has failed.
    pub(crate) fn open_clients(
        &mut self,
        connections: Range<usize>,
        concurrency: usize,
    ) -> Result<OpenOutcome, BenchError> {
        let begun = Instant::now();
        let total = connections.len() as u64;
        self.opening = OpenProgress::default();
        let mut waiting = connections;
        loop {
            while self.opening.under_way < concurrency
                && let Some(connection) = waiting.next()
            {
                self.begin_client(connection);
            }
            // The next token would be refused too.
            if let Some(answer) = self.unauthorized.take() {
                return Err(BenchError::Unauthorized(answer));
            }
            let OpenOutcome {
                connects, failures, ..
            } = self.opening.outcome;
            if connects + failures == total {
                break;
            }
            self.report_progress("connecting", connects + failures, total);
            self.poll_once(Instant::now() + NAP)?;
            self.time_out_slow();
        }
        let mut outcome = std::mem::take(&mut self.opening).outcome;
        outcome.took = begun.elapsed();
        Ok(outcome)
    }

    pub(super) fn on_subscribed(&mut self) {
        self.opening.under_way -= 1;
        self.opening.outcome.connects += 1;
    }

    pub(super) fn on_failure(&mut self, error: &ClientFailure) {
        self.opening.under_way -= 1;
        self.opening.outcome.failures += 1;
        self.note_failure(error);
    }

    fn begin_client(&mut self, connection: usize) {
        self.opening.under_way += 1;
        match self.try_begin_client(connection) {
            Ok(()) => {
                let begun = (connection, Instant::now());
                self.opening.begun.push_back(begun);
            }
            Err(error) => self.on_failure(&error.into()),
        }
    }

    fn try_begin_client(&mut self, connection: usize) -> io::Result<()> {
        let mut link = TargetLink::open(&self.target.clients, self.sources, connection)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut link.stream, Token(connection), interest)?;
        if let Some(slot) = self.clients.get_mut(connection) {
            *slot = Some(BenchClient::new(link));
        }
        Ok(())
    }

    fn time_out_slow(&mut self) {
        while let Some((connection, begun)) = self.opening.begun.front().copied() {
            let client = self.clients.get(connection).and_then(Option::as_ref);
            let is_opening = client.is_some_and(|client| !client.is_subscribed());
            if is_opening && begun.elapsed() < OPENING_TIMEOUT {
                return;
            }
            self.opening.begun.pop_front();
            if is_opening {
                self.close_clients(connection..connection + 1);
                self.on_failure(&ClientFailure::TimedOut(OPENING_TIMEOUT.as_secs()));
            }
        }
    }
}
