//! The metrics of the process that Prometheus' client libraries have too, under the same names. They
//! are written here, since the seconds of CPU time are a counter with a fraction. A value that the
//! system does not tell is left out.

use std::{
    fmt::{self, Write as _},
    fs,
};

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

/// Appends the metrics of the process to a scrape.
pub(super) fn append_process(scrape: &mut String) {
    let values = [
        (
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            Some(cpu_seconds()),
        ),
        (
            "process_open_fds",
            "gauge",
            "Number of open file descriptors.",
            open_descriptors(),
        ),
        (
            "process_max_fds",
            "gauge",
            "Maximum number of open file descriptors.",
            getrlimit(Resource::Nofile).current.map(as_double),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            resident_bytes(),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            start_time(),
        ),
    ];
    for (name, kind, help, value) in values {
        if let Some(value) = value {
            let written = append_value(scrape, name, kind, help, value);
            debug_assert!(written.is_ok(), "a string takes all that is written to it");
        }
    }
}

fn append_value(
    scrape: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    value: f64,
) -> fmt::Result {
    writeln!(
        scrape,
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
    )
}

/// Returns the CPU time of all threads of the process so far, in seconds.
#[must_use]
pub fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    std::time::Duration::try_from(time).map_or(0.0, |time| time.as_secs_f64())
}

/// Returns the number of open file descriptors. Since Linux 6.2 the kernel tells it as the size of
/// the directory. Before, the entries are counted, which takes about 1 µs each.
fn open_descriptors() -> Option<f64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let size = fs::metadata(DIRECTORY).ok()?.len();
    if size > 0 {
        return Some(as_double(size));
    }
    // One of them is that of the directory itself.
    let count = fs::read_dir(DIRECTORY).ok()?.count().saturating_sub(1);
    Some(as_double(count as u64))
}

/// Returns the resident memory of the process in bytes, if the system tells it.
#[must_use]
pub fn resident_bytes() -> Option<f64> {
    // The size and the resident part, in pages.
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(as_double(pages.saturating_mul(page_size() as u64)))
}

fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, which may have spaces in it; the
    // start is the 22nd, in ticks since the system has started.
    let (_, after_name) = stat.rsplit_once(") ")?;
    let ticks: u64 = after_name.split(' ').nth(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted = system.lines().find_map(|line| line.strip_prefix("btime "));
    let booted: u64 = booted?.parse().ok()?;
    Some(as_double(booted) + as_double(ticks) / as_double(clock_ticks_per_second()))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the numbers stay far below 2^53"
)]
fn as_double(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File};

    use sidewire_protocol::clock::Clock;

    use super::*;

    fn values() -> BTreeMap<String, f64> {
        let mut scrape = String::new();
        append_process(&mut scrape);
        let lines = scrape.lines().filter(|line| !line.starts_with('#'));
        let values = lines.filter_map(|line| line.split_once(' '));
        values
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_values_are_those_of_this_process() {
        let before = values();
        assert_eq!(before.len(), 5);
        assert!((1e6..1e11).contains(&before["process_resident_memory_bytes"]));
        let now = Clock::system().since_unix_epoch().as_secs_f64();
        let age = now - before["process_start_time_seconds"];
        assert!((-1.0..86_400.0).contains(&age), "{age}");
        assert!(before["process_open_fds"] <= before["process_max_fds"]);

        // Other tests of this process open and close files too, though not as many.
        let files: Vec<_> = (0..500).map(|_| File::open("/dev/null").unwrap()).collect();
        let mut sum = 0_u64;
        while values()["process_cpu_seconds_total"] <= before["process_cpu_seconds_total"] {
            sum = sum.wrapping_add(1);
        }
        assert!(values()["process_open_fds"] >= before["process_open_fds"] + 250.0);
        drop(files);
    }
}
