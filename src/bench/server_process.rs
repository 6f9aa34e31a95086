//! What the target's process takes up, as the kernel tells it in `/proc`. Knows
//! nothing of what the process does.

use std::{collections::HashMap, ffi::OsString, fs, io, path::PathBuf, time::Duration};

/// A running process.
#[derive(Debug)]
pub(super) struct ServerProcess {
    directory: PathBuf,
    /// Whether the kernel counts nanoseconds.
    is_exact: bool,
    /// What each thread had used when it was looked at last.
    threads: HashMap<OsString, Duration>,
    /// The same of those that have ended since.
    ended: Duration,
}

/// What the kernel's clock ticks are in `/proc/PID/stat`: 100 a second on every
/// Linux that there is.
const TICK: Duration = Duration::from_millis(10);

impl ServerProcess {
    /// The process with this number.
    pub(super) fn new(pid: u32) -> io::Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let is_exact = directory.join("schedstat").exists();
        let mut process = Self {
            directory,
            is_exact,
            threads: HashMap::new(),
            ended: Duration::ZERO,
        };
        process.cpu()?;
        Ok(process)
    }

    /// The processor time that it has used so far.
    pub(super) fn cpu(&mut self) -> io::Result<Duration> {
        if !self.is_exact {
            return self.cpu_in_ticks();
        }
        let mut threads = HashMap::new();
        for task in fs::read_dir(self.directory.join("task"))? {
            let task = task?;
            // A thread may end in between.
            if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
                threads.insert(task.file_name(), on_cpu(&text).ok_or_else(malformed)?);
            }
        }
        let before = std::mem::replace(&mut self.threads, threads);
        let gone = before.iter().filter(|it| !self.threads.contains_key(it.0));
        self.ended += gone.map(|it| it.1).sum::<Duration>();
        Ok(self.threads.values().sum::<Duration>() + self.ended)
    }

    fn cpu_in_ticks(&self) -> io::Result<Duration> {
        let text = self.read("stat")?;
        ticks(&text).ok_or_else(malformed)
    }

    /// Its share of the memory: pages that several processes have are split.
    pub(super) fn memory_bytes(&self) -> io::Result<u64> {
        let text = self.read("smaps_rollup")?;
        pss_bytes(&text).ok_or_else(malformed)
    }

    /// How many descriptors more it may open.
    pub(super) fn descriptors_left(&self) -> io::Result<u64> {
        let text = self.read("limits")?;
        let most = descriptors_max(&text).ok_or_else(malformed)?;
        let open = fs::read_dir(self.directory.join("fd"))?.count() as u64;
        Ok(most.saturating_sub(open))
    }

    fn read(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.directory.join(name))
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc has another format here")
}

/// `schedstat`: nanoseconds on a processor, waiting for one, and time slices.
fn on_cpu(schedstat: &str) -> Option<Duration> {
    let first = schedstat.split_whitespace().next()?;
    first.parse().ok().map(Duration::from_nanos)
}

/// `stat`: behind the name, which may have any character in it, utime and stime
/// are the 12th and 13th field.
fn ticks(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u32>().ok();
    Some(TICK * next()?.checked_add(next()?)?)
}

fn pss_bytes(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn descriptors_max(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read_as_they_are_written() {
        assert_eq!(on_cpu("12771 98 2\n"), Some(Duration::from_nanos(12_771)));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0";
        assert_eq!(ticks(stat), Some(Duration::from_millis(1750)));
        let smaps = "55bc-7ffc ---p 0 00:00 0   [rollup]\nRss:  1852 kB\nPss:   373 kB\n";
        assert_eq!(pss_bytes(smaps), Some(373 * 1024));
        let limits = "Limit  Soft  Hard\nMax open files            20000  30000  files\n";
        assert_eq!(descriptors_max(limits), Some(20_000));
        assert_eq!(descriptors_max("Max open files unlimited"), Some(u64::MAX));
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let mut process = ServerProcess::new(std::process::id()).unwrap();
        let begun = process.cpu().unwrap();
        assert!(process.memory_bytes().unwrap() > 100_000);
        assert!(process.descriptors_left().unwrap() > 0);
        while process.cpu().unwrap() == begun {
            std::hint::spin_loop();
        }
        process.cpu_in_ticks().unwrap();
    }

    #[test]
    fn what_a_thread_has_used_is_not_forgotten_when_it_ends() {
        let mut process = ServerProcess::new(std::process::id()).unwrap();
        let ended = Duration::from_secs(1000);
        process.threads.insert("gone".into(), ended);
        assert!(process.cpu().unwrap() >= ended);
        assert!(process.cpu().unwrap() >= ended);
        assert!(process.ended >= ended && process.ended < 2 * ended);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(ServerProcess::new(u32::MAX).is_err());
    }
}
