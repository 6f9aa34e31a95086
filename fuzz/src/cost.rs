//! Measures the cost of an input: prints the slowest so far, and fails if one takes too long.
//!
//! The relay may take 10 ms for a MiB of any input. A target takes longer: it is built
//! without optimization and counts edges, and most targets do their work twice or compare
//! it with the result of another implementation. [`SLOWDOWN`] is an upper bound of that
//! factor.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Maximum time of the relay for a MiB.
const TIME_PER_MIB: Duration = Duration::from_millis(10);

/// A target's time as a multiple of that of the relay's release build.
const SLOWDOWN: u32 = 40;

/// A shorter input may take as long as one of this many bytes, since most of its time does
/// not grow with its size.
const BYTES_MIN: usize = 64 * 1024;

/// Number of tries for an input that takes too long; the minimum counts.
const TRIES: usize = 5;

const MIB: f64 = 1_048_576.0;

/// Maximum nanoseconds per MiB so far.
static SLOWEST: AtomicU64 = AtomicU64::new(0);

/// Runs the target with this input.
///
/// # Panics
///
/// Panics if the input takes too long.
pub fn measured(input: &[u8], run: fn(&[u8])) {
    let mut took = time(input, run);
    let is_slow = |took| a_mib(took, input) > TIME_PER_MIB * SLOWDOWN;
    for _ in 1..TRIES {
        if !is_slow(took) {
            break;
        }
        took = took.min(time(input, run));
    }
    assert!(
        !is_slow(took),
        "{} bytes take {took:.1?}, which is too long",
        input.len()
    );
    let took = u64::try_from(a_mib(took, input).as_nanos()).unwrap_or(u64::MAX);
    if SLOWEST.fetch_max(took, Ordering::Relaxed) < took {
        let milliseconds = took as f64 / 1e6 / f64::from(SLOWDOWN);
        let bytes = input.len();
        eprintln!("slowest: {milliseconds:.1} ms a MiB ({bytes} bytes)");
    }
}

/// Returns the time for a MiB of such input.
fn a_mib(took: Duration, input: &[u8]) -> Duration {
    took.mul_f64(MIB / input.len().max(BYTES_MIN) as f64)
}

fn time(input: &[u8], run: fn(&[u8])) -> Duration {
    let begun = thread_cpu_time();
    run(input);
    thread_cpu_time().saturating_sub(begun)
}

/// CPU time, since other processes may run meanwhile.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}
