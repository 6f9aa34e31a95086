//! The CPU time and memory of the target's process, read from `/proc`.

use std::{collections::HashMap, ffi::OsString, fs, io, path::PathBuf, time::Duration};

/// A running process.
#[derive(Debug)]
pub(super) struct ServerProcess {
    directory: PathBuf,
    /// True if the kernel counts CPU time in nanoseconds (`schedstat`).
    is_exact: bool,
    /// CPU time of each thread at the last reading.
    threads: HashMap<OsString, Duration>,
    /// Total CPU time of threads that have ended.
    ended: Duration,
}

/// The clock tick of `/proc/PID/stat`: 100 per second on every Linux.
const TICK: Duration = Duration::from_millis(10);

impl ServerProcess {
    /// Opens the process with this id.
    ///
    /// # Errors
    ///
    /// When it does not exist or its figures cannot be read.
    pub(super) fn new(pid: u32) -> io::Result<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let is_exact = directory.join("schedstat").exists();
        let mut process = Self {
            directory,
            is_exact,
            threads: HashMap::new(),
            ended: Duration::ZERO,
        };
        process.cpu_time()?;
        Ok(process)
    }

    /// Returns the CPU time that the process has used so far.
    pub(super) fn cpu_time(&mut self) -> io::Result<Duration> {
        if !self.is_exact {
            return self.cpu_time_in_ticks();
        }
        let mut threads = HashMap::new();
        for task in fs::read_dir(self.directory.join("task"))? {
            let task = task?;
            // The thread may have ended since the directory was read.
            if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
                threads.insert(
                    task.file_name(),
                    schedstat_time(&text).ok_or_else(malformed_proc)?,
                );
            }
        }
        let before = std::mem::replace(&mut self.threads, threads);
        let gone = before.iter().filter(|it| !self.threads.contains_key(it.0));
        self.ended += gone.map(|it| it.1).sum::<Duration>();
        Ok(self.threads.values().sum::<Duration>() + self.ended)
    }

    fn cpu_time_in_ticks(&self) -> io::Result<Duration> {
        let text = self.read_file("stat")?;
        stat_time(&text).ok_or_else(malformed_proc)
    }

    /// Returns the proportional set size: pages shared by several processes are split
    /// between them.
    pub(super) fn memory_bytes(&self) -> io::Result<u64> {
        let text = self.read_file("smaps_rollup")?;
        pss_bytes(&text).ok_or_else(malformed_proc)
    }

    /// Returns the number of descriptors that the process may still open.
    pub(super) fn descriptors_left(&self) -> io::Result<u64> {
        let text = self.read_file("limits")?;
        let most = descriptors_max(&text).ok_or_else(malformed_proc)?;
        let open = fs::read_dir(self.directory.join("fd"))?.count() as u64;
        Ok(most.saturating_sub(open))
    }

    fn read_file(&self, name: &str) -> io::Result<String> {
        fs::read_to_string(self.directory.join(name))
    }
}

fn malformed_proc() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "unexpected format in /proc")
}

/// Parses the CPU time in `schedstat`, which holds the nanoseconds on a CPU, the
/// nanoseconds waiting for one, and the number of time slices.
fn schedstat_time(schedstat: &str) -> Option<Duration> {
    let first = schedstat.split_whitespace().next()?;
    first.parse().ok().map(Duration::from_nanos)
}

/// Parses the CPU time in `stat`: after the name, which may contain any character,
/// utime and stime are the 12th and 13th field.
fn stat_time(stat: &str) -> Option<Duration> {
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
    fn the_proc_files_of_the_kernel_are_parsed() {
        assert_eq!(
            schedstat_time("12771 98 2\n"),
            Some(Duration::from_nanos(12_771))
        );
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0";
        assert_eq!(stat_time(stat), Some(Duration::from_millis(1750)));
        let smaps = "55bc-7ffc ---p 0 00:00 0   [rollup]\nRss:  1852 kB\nPss:   373 kB\n";
        assert_eq!(pss_bytes(smaps), Some(373 * 1024));
        let limits = "Limit  Soft  Hard\nMax open files            20000  30000  files\n";
        assert_eq!(descriptors_max(limits), Some(20_000));
        assert_eq!(descriptors_max("Max open files unlimited"), Some(u64::MAX));
    }

    #[test]
    fn the_cpu_time_and_memory_of_this_process_are_measured() {
        let mut process = ServerProcess::new(std::process::id()).unwrap();
        let begun = process.cpu_time().unwrap();
        assert!(process.memory_bytes().unwrap() > 100_000);
        assert!(process.descriptors_left().unwrap() > 0);
        while process.cpu_time().unwrap() == begun {
            std::hint::spin_loop();
        }
        process.cpu_time_in_ticks().unwrap();
    }

    #[test]
    fn the_cpu_time_of_a_thread_that_has_ended_still_counts() {
        let mut process = ServerProcess::new(std::process::id()).unwrap();
        let ended = Duration::from_secs(1000);
        process.threads.insert("gone".into(), ended);
        assert!(process.cpu_time().unwrap() >= ended);
        assert!(process.cpu_time().unwrap() >= ended);
        assert!(process.ended >= ended && process.ended < 2 * ended);
    }

    #[test]
    fn a_missing_process_is_an_error() {
        assert!(ServerProcess::new(u32::MAX).is_err());
    }
}
