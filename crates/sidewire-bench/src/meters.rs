//! Meters of CPU time and memory, of the target and of this process, and the differences
//! between readings.

use std::time::{Duration, Instant};

use super::{BenchError, server_process::ServerProcess};

/// The meters of CPU time and memory.
pub(super) struct UsageMeters {
    server: Option<ServerProcess>,
}

/// A reading of the meters.
#[derive(Debug, Clone, Copy)]
pub(super) struct MeterReading {
    at: Instant,
    server_cpu: Option<Duration>,
    generator_cpu: Duration,
}

impl UsageMeters {
    /// Creates the meters; those of the target only if its process id is given.
    pub(super) fn new(server_pid: Option<u32>) -> Result<Self, BenchError> {
        let server = server_pid.map(|pid| {
            ServerProcess::new(pid).map_err(|source| BenchError::ServerProcess { pid, source })
        });
        Ok(Self {
            server: server.transpose()?,
        })
    }

    pub(super) fn has_server(&self) -> bool {
        self.server.is_some()
    }

    pub(super) fn read(&mut self) -> Result<MeterReading, BenchError> {
        Ok(MeterReading {
            at: Instant::now(),
            server_cpu: self
                .server
                .as_mut()
                .map(ServerProcess::cpu_time)
                .transpose()?,
            generator_cpu: own_cpu(),
        })
    }

    pub(super) fn memory_bytes(&self) -> Result<Option<u64>, BenchError> {
        let memory = self.server.as_ref().map(ServerProcess::memory_bytes);
        Ok(memory.transpose()?)
    }
}

/// The difference between two readings.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UsageDelta {
    pub(super) time: Duration,
    pub(super) server_cpu: Option<Duration>,
    pub(super) generator_cpu: Duration,
}

impl UsageDelta {
    pub(super) fn between(from: MeterReading, to: MeterReading) -> Self {
        let server_cpu = to.server_cpu.zip(from.server_cpu);
        Self {
            time: to.at - from.at,
            server_cpu: server_cpu.map(|(to, from)| to.saturating_sub(from)),
            generator_cpu: to.generator_cpu.saturating_sub(from.generator_cpu),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.time += other.time;
        self.generator_cpu += other.generator_cpu;
        self.server_cpu = match (self.server_cpu, other.server_cpu) {
            (Some(sum), Some(other)) => Some(sum + other),
            (sum, other) => sum.or(other),
        };
    }
}

fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
