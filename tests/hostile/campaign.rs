//! Runs a family's mutators against the relay, each equally often, and counts the results.
//! Knows nothing about their contents.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use sidewire_testing::socket::Socket;
use tokio::{task::JoinSet, time::timeout};

use crate::forge::{Forge, Site};

/// The relay answers and closes within this time.
const DEADLINE: Duration = Duration::from_secs(1);

/// A case is abandoned after this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Number of cases of a family that run at the same time.
const WORKERS: u64 = 6;

/// A worker stops after this many deviations.
const DEVIATIONS_MAX: usize = 5;

/// A way to be hostile: a name, and a function that makes a case.
pub(crate) struct Mutator<C> {
    name: String,
    make: Box<dyn Fn(&mut Forge) -> C + Send + Sync>,
}

impl<C> Mutator<C> {
    pub(crate) fn new(
        name: impl Into<String>,
        make: impl Fn(&mut Forge) -> C + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            make: Box::new(make),
        }
    }

    /// Makes other cases of those of this mutator, under the same name.
    pub(crate) fn map<D>(
        self,
        convert: impl Fn(C, &mut Forge) -> D + Send + Sync + 'static,
    ) -> Mutator<D>
    where
        C: 'static,
    {
        let make = self.make;
        Mutator::new(self.name, move |forge| convert(make(forge), forge))
    }
}

/// Connects to the relay. The connection ends with a reset: so many would use up the ports if
/// each lingered.
pub(crate) async fn connect(address: SocketAddr) -> Result<Socket, String> {
    let socket = Socket::connect(address).await?;
    socket.reset_on_drop();
    Ok(socket)
}

/// Runs the cases of one family, one after another. It may keep a connection from one case
/// to the next.
pub(crate) trait Attacker: Send + 'static {
    const FAMILY: &'static str;
    type Case: Send;

    fn mutators() -> Vec<Mutator<Self::Case>>;

    fn new(site: &Arc<Site>) -> Self;

    /// Runs a case, and compares what the relay does with what is expected.
    fn attempt(&mut self, case: &Self::Case) -> impl Future<Output = Result<(), String>> + Send;
}

/// Results of one mutator.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) family: &'static str,
    pub(crate) name: String,
    pub(crate) tried: u64,
    pub(crate) as_expected: u64,
}

/// Results of a family.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) deviations: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.deviations.extend(other.deviations);
        self.slowest = self.slowest.max(other.slowest);
    }

    /// Adds the results of another worker of the same family.
    fn merge(&mut self, other: Self) {
        for (row, more) in self.rows.iter_mut().zip(other.rows) {
            row.tried += more.tried;
            row.as_expected += more.as_expected;
        }
        self.deviations.extend(other.deviations);
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// Runs this many cases of a family.
pub(crate) async fn run<A: Attacker>(site: Arc<Site>, pace: Pace, seed: u64, cases: u64) -> Report {
    let mutators = Arc::new(A::mutators());
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (site, mutators, pace) = (Arc::clone(&site), Arc::clone(&mutators), pace.clone());
        workers.spawn(async move {
            let indices = (worker..cases).step_by(WORKERS as usize);
            work::<A>(&site, &mutators, &pace, seed, indices).await
        });
    }
    let mut report = Report {
        rows: rows::<A>(&mutators),
        ..Report::default()
    };
    while let Some(worked) = workers.join_next().await {
        report.merge(worked.unwrap());
    }
    report
}

fn rows<A: Attacker>(mutators: &[Mutator<A::Case>]) -> Vec<Row> {
    let row = |mutator: &Mutator<A::Case>| Row {
        family: A::FAMILY,
        name: mutator.name.clone(),
        tried: 0,
        as_expected: 0,
    };
    mutators.iter().map(row).collect()
}

async fn work<A: Attacker>(
    site: &Arc<Site>,
    mutators: &[Mutator<A::Case>],
    pace: &Pace,
    seed: u64,
    indices: impl Iterator<Item = u64>,
) -> Report {
    let mut attacker = A::new(site);
    let mut report = Report {
        rows: rows::<A>(mutators),
        ..Report::default()
    };
    for index in indices {
        let which = usize::try_from(index).unwrap() % mutators.len();
        let (mutator, row) = (&mutators[which], &mut report.rows[which]);
        let case = (mutator.make)(&mut Forge::new(site, seed, A::FAMILY, index));
        let (outcome, took) = pace.time(attacker.attempt(&case)).await;
        report.slowest = report.slowest.max(took);
        row.tried += 1;
        match outcome {
            Ok(()) => row.as_expected += 1,
            Err(what) => {
                let (family, name) = (A::FAMILY, &mutator.name);
                let told = format!("{family}, {name}, case {index} of seed {seed}: {what}");
                report.deviations.push(told);
                attacker = A::new(site);
            }
        }
        if report.deviations.len() >= DEVIATIONS_MAX {
            break;
        }
    }
    report
}

/// A clock that subtracts the delays of the machine itself. A thread measures them by
/// sleeping for a few milliseconds at a time and noting how late it wakes.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Total delay in microseconds; it only grows.
    late: Arc<AtomicU64>,
}

impl Pace {
    /// Starts the clock; its thread ends once the clock is no longer used.
    pub(crate) fn start() -> Self {
        const TICK: Duration = Duration::from_millis(5);
        let late = Arc::new(AtomicU64::new(0));
        let kept = Arc::downgrade(&late);
        thread::spawn(move || {
            let mut before = Instant::now();
            while let Some(late) = kept.upgrade() {
                thread::sleep(TICK);
                let more = before.elapsed().saturating_sub(2 * TICK);
                before = Instant::now();
                late.fetch_add(u64::try_from(more.as_micros()).unwrap(), Ordering::Relaxed);
            }
        });
        Self { late }
    }

    /// Runs the future and returns how long it took. Returns an error if it takes longer
    /// than the relay may.
    pub(crate) async fn time(
        &self,
        attempt: impl Future<Output = Result<(), String>>,
    ) -> (Result<(), String>, Duration) {
        let (began, late_before) = (Instant::now(), self.late.load(Ordering::Relaxed));
        let outcome = timeout(PATIENCE, attempt)
            .await
            .unwrap_or_else(|_| Err("nothing came".to_owned()));
        let late = self.late.load(Ordering::Relaxed) - late_before;
        let took = began.elapsed().saturating_sub(Duration::from_micros(late));
        if outcome.is_ok() && took > DEADLINE {
            return (Err(format!("took {took:?}")), took);
        }
        (outcome, took)
    }
}
