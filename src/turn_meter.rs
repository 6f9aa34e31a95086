//! Measures the turns of a shard's event loop: the time that a ready task waits for those before
//! it, and how much of that time the shard's thread uses the CPU.
//!
//! A turn is one pass over the event loop's queue. It begins when the first task is polled, and
//! ends when all tasks that were ready at that moment have been polled. The queue is first in,
//! first out, so a task of the meter that is woken at the start of a turn runs at its end. An
//! idle shard is not woken.
//!
//! The meter costs one poll and two readings of the wall clock, 30 ns each, per turn. Reading the
//! thread's CPU clock is a system call of 0.8 µs, so it is done at most every 0.1 ms: a shorter
//! turn counts with its wall time, which is in the same bucket, and the CPU time of a longer one
//! may be up to 0.1 ms too high.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use pin_project_lite::pin_project;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::{JoinHandle, spawn_local};

use crate::tally::{DurationHistogram, ShardTally};

/// Turns up to this long count with their wall time instead of their CPU time.
const SHORT: Duration = DurationHistogram::BOUNDS[0];

/// The meter of one shard. Stays on the shard's thread.
#[derive(Debug)]
pub struct TurnMeter {
    tally: Arc<ShardTally>,
    /// The start of the current turn, if any.
    began: Cell<Option<Instant>>,
    /// The thread's CPU time, and the time at which it was read.
    cpu_read: Cell<(Duration, Instant)>,
    /// Wakes the task that ends turns.
    waker: RefCell<Option<Waker>>,
}

impl TurnMeter {
    /// Creates a meter that records turns in this tally while [`run`](Self::run) is polled.
    #[must_use]
    pub fn new(tally: Arc<ShardTally>) -> Self {
        Self {
            tally,
            began: Cell::default(),
            cpu_read: Cell::new((thread_cpu_time(), Instant::now())),
            waker: RefCell::default(),
        }
    }

    /// Ends and records each turn. Must be a task of its own on the shard's event loop.
    pub async fn run(&self) -> Infallible {
        poll_fn(|context| {
            self.end_turn();
            let waker = Some(context.waker().clone());
            self.waker.replace(waker);
            Poll::Pending
        })
        .await
    }

    /// Spawns a task. Its polls are part of the shard's turns.
    pub fn spawn<F>(self: &Rc<Self>, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: 'static> + 'static,
    {
        spawn_local(self.metered(future))
    }

    /// Wraps a future so that its polls are part of the shard's turns.
    pub fn metered<F: Future>(self: &Rc<Self>, future: F) -> MeteredFuture<F> {
        MeteredFuture {
            future,
            meter: Rc::clone(self),
        }
    }

    /// Begins a turn, unless one is in progress or no task would end it.
    fn begin_turn(&self) {
        if self.began.get().is_some() {
            return;
        }
        if let Some(waker) = &*self.waker.borrow() {
            let now = Instant::now();
            if now - self.cpu_read.get().1 > SHORT {
                self.cpu_read.set((thread_cpu_time(), now));
            }
            self.began.set(Some(now));
            waker.wake_by_ref();
        }
    }

    fn end_turn(&self) {
        let Some(began) = self.began.take() else {
            return;
        };
        let now = Instant::now();
        let stall = now - began;
        self.tally.turn_stall.record(stall);
        self.tally.turn_cpu.record(self.cpu_time_of(stall, now));
    }

    /// Returns the CPU time of a turn that ends at `now` and has taken `stall`.
    fn cpu_time_of(&self, stall: Duration, now: Instant) -> Duration {
        if stall <= SHORT {
            return stall;
        }
        let cpu = thread_cpu_time();
        let (before, _) = self.cpu_read.replace((cpu, now));
        cpu.saturating_sub(before).min(stall)
    }
}

/// Returns the CPU time of the calling thread.
fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime)
        .try_into()
        .unwrap_or_default()
}

pin_project! {
    /// Wraps a future. Its polls are part of a shard's turns.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct MeteredFuture<F> {
        #[pin]
        future: F,
        meter: Rc<TurnMeter>,
    }
}

impl<F: Future> Future for MeteredFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.meter.begin_turn();
        this.future.poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use tokio::{
        runtime::{Builder, LocalOptions},
        task::yield_now,
        time::sleep,
    };

    use super::*;

    const WORK: Duration = Duration::from_millis(20);

    /// Runs the test on an event loop with a meter.
    fn with_meter(test: impl AsyncFnOnce(Rc<TurnMeter>)) {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let meter = Rc::new(TurnMeter::new(Arc::default()));
            let runs = Rc::clone(&meter);
            spawn_local(async move { runs.run().await });
            yield_now().await;
            test(meter).await;
        });
    }

    fn compute(time: Duration) {
        let began = thread_cpu_time();
        while thread_cpu_time() - began < time {}
    }

    /// Returns the number of recorded turns, and the sums of their CPU and wall times.
    fn recorded(meter: &TurnMeter) -> (u64, Duration, Duration) {
        let ShardTally {
            turn_cpu,
            turn_stall,
            ..
        } = &*meter.tally;
        assert_eq!(turn_cpu.count(), turn_stall.count());
        assert!(turn_cpu.sum() <= turn_stall.sum());
        (turn_cpu.count(), turn_cpu.sum(), turn_stall.sum())
    }

    #[test]
    fn a_task_that_computes_shows_as_cpu_time_and_as_a_stall() {
        with_meter(async |meter| {
            meter.spawn(async { compute(WORK) }).await.unwrap();
            yield_now().await;
            let (turns, cpu, stall) = recorded(&meter);
            assert_eq!(turns, 1);
            assert!(cpu >= WORK && stall >= WORK, "{cpu:?} {stall:?}");
        });
    }

    #[test]
    fn a_task_that_blocks_shows_as_a_stall_only() {
        with_meter(async |meter| {
            meter.spawn(async { thread::sleep(WORK) }).await.unwrap();
            yield_now().await;
            let (turns, cpu, stall) = recorded(&meter);
            assert_eq!(turns, 1);
            assert!(cpu < WORK && stall >= WORK, "{cpu:?} {stall:?}");
        });
    }

    /// Like [`recorded`], after the turns of all ready tasks, and of those that they spawn, have
    /// ended.
    async fn all_recorded(meter: &TurnMeter) -> (u64, Duration, Duration) {
        yield_now().await;
        yield_now().await;
        recorded(meter)
    }

    #[test]
    fn tasks_that_are_ready_together_share_a_turn() {
        with_meter(async |meter| {
            for _ in 0..4 {
                meter.spawn(async { compute(WORK) });
            }
            let (turns, cpu, _) = all_recorded(&meter).await;
            assert_eq!(turns, 1);
            assert!(cpu >= 4 * WORK, "{cpu:?}");
        });
    }

    #[test]
    fn a_task_that_becomes_ready_later_runs_in_the_next_turn() {
        with_meter(async |meter| {
            let spawns = Rc::clone(&meter);
            meter.spawn(async move {
                compute(WORK);
                spawns.spawn(async { compute(WORK) });
            });
            let (turns, cpu, _) = all_recorded(&meter).await;
            assert_eq!(turns, 2);
            assert!(cpu >= 2 * WORK, "{cpu:?}");
        });
    }

    #[test]
    fn cpu_time_of_the_thread_before_a_turn_is_not_counted() {
        with_meter(async |meter| {
            compute(WORK);
            meter.spawn(async { thread::sleep(WORK) }).await.unwrap();
            yield_now().await;
            let (turns, cpu, stall) = recorded(&meter);
            assert_eq!(turns, 1);
            assert!(cpu < WORK && stall >= WORK, "{cpu:?} {stall:?}");
        });
    }

    #[test]
    fn an_idle_shard_records_nothing() {
        with_meter(async |meter| {
            meter.spawn(std::future::pending::<()>());
            yield_now().await;
            yield_now().await;
            let before = recorded(&meter);
            assert_eq!(before.0, 1);
            sleep(WORK).await;
            assert_eq!(recorded(&meter), before);
        });
    }

    #[test]
    fn no_turn_begins_without_the_task_that_ends_turns() {
        let runtime = Builder::new_current_thread()
            .build_local(LocalOptions::default())
            .unwrap();
        runtime.block_on(async {
            let meter = Rc::new(TurnMeter::new(Arc::default()));
            meter.spawn(async {}).await.unwrap();
            assert_eq!(meter.began.get(), None);
        });
    }
}
