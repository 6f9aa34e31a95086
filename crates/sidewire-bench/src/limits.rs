//! Checks a plan against limits before the run: those of this process, and those of the
//! target as far as they are known.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{
    BenchError, BenchPlan, Scenario, TargetProtocol, link::uses_many_source_addresses,
    server_process::ServerProcess,
};

/// The limits of a relay that a plan may exceed.
#[derive(Debug, Clone, Copy)]
pub struct RelayLimits {
    /// `ingest.body_max`, in bytes.
    pub body_max: usize,
    /// `ingest.batch_body_max`, in bytes.
    pub batch_body_max: usize,
    /// `ingest.batch_events_max`.
    pub batch_events_max: usize,
    /// `limits.outbox_frames`.
    pub outbox_frames: usize,
    /// `limits.outbox_bytes`.
    pub outbox_bytes: usize,
    /// `limits.tenants`.
    pub tenants: usize,
}

/// Number of descriptors that a process needs besides its connections.
const OTHER_DESCRIPTORS: u64 = 64;

/// Number of ports that Linux uses by default for outgoing connections.
const PORTS_DEFAULT: usize = 28_232;

/// Returns warnings about limits of the relay, or of the given server process, that the plan
/// would exceed.
#[must_use]
pub fn warnings(plan: &BenchPlan, limits: &RelayLimits) -> Vec<String> {
    let mut found = Vec::new();
    if matches!(plan.target.speech, TargetProtocol::Relay(_)) {
        found.extend(relay_limit_warnings(plan, limits));
    }
    found.extend(process_limit_warning(plan));
    found
}

fn relay_limit_warnings(plan: &BenchPlan, limits: &RelayLimits) -> Vec<String> {
    let batch = plan.scenario.batch();
    let (body_max, body_key) = match batch {
        1 => (limits.body_max, "ingest.body_max"),
        _ => (limits.batch_body_max, "ingest.batch_body_max"),
    };
    let outstanding = match plan.scenario {
        Scenario::Throughput { outstanding, .. } | Scenario::Growth { outstanding, .. } => {
            outstanding
        }
        _ => 0,
    };
    let tenants = match &plan.target.speech {
        TargetProtocol::Relay(relay) => relay.tenants,
        TargetProtocol::Floor(_) => 0,
    };
    let frames_bytes = outstanding.saturating_mul(plan.payload_bytes);
    [
        (
            batch.saturating_mul(plan.payload_bytes),
            body_max,
            body_key,
            "bytes per call",
        ),
        (
            batch,
            limits.batch_events_max,
            "ingest.batch_events_max",
            "events per call",
        ),
        (
            outstanding,
            limits.outbox_frames,
            "limits.outbox_frames",
            "events that may be queued for a client",
        ),
        (
            frames_bytes,
            limits.outbox_bytes,
            "limits.outbox_bytes",
            "bytes that may be queued for a client",
        ),
        (tenants, limits.tenants, "limits.tenants", "tenants"),
    ]
    .into_iter()
    .filter(|(wanted, most, ..)| wanted > most)
    .map(|(wanted, most, key, what)| {
        format!("{wanted} {what}: a relay accepts at most {most} unless {key} is raised")
    })
    .collect()
}

fn process_limit_warning(plan: &BenchPlan) -> Option<String> {
    let process = ServerProcess::new(plan.server_pid?).ok()?;
    let left = process.descriptors_left().ok()?;
    let needed = sockets_needed(plan);
    (needed > left).then(|| {
        format!("{needed} connections: the server's process may open only {left} more descriptors")
    })
}

fn sockets_needed(plan: &BenchPlan) -> u64 {
    (plan.scenario.fanout().connections + plan.scenario.publishers()) as u64
}

/// Raises this process's descriptor limit to its hard limit.
///
/// # Errors
///
/// When the plan needs more descriptors or local ports than there are.
pub(super) fn raise_descriptor_limit(plan: &BenchPlan) -> Result<(), BenchError> {
    let needed = sockets_needed(plan) + OTHER_DESCRIPTORS;
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(std::io::Error::from)?;
    let most = maximum.unwrap_or(u64::MAX);
    if needed > most {
        return Err(BenchError::Descriptors { needed, most });
    }
    let connections = plan.scenario.fanout().connections;
    let ports = local_ports();
    if !uses_many_source_addresses(plan.target.clients.address) && connections > ports {
        return Err(BenchError::Ports { connections, ports });
    }
    Ok(())
}

fn local_ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    range
        .and_then(|text| count_ports(&text))
        .unwrap_or(PORTS_DEFAULT)
}

fn count_ports(range: &str) -> Option<usize> {
    let mut ends = range.split_whitespace().map(str::parse::<usize>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    last.checked_sub(first).map(|between| between + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_is_counted_with_both_ends() {
        assert_eq!(count_ports("32768\t60999\n"), Some(28_232));
        assert_eq!(count_ports("1024 1024"), Some(1));
        assert_eq!(count_ports("2 1"), None);
        assert_eq!(count_ports(""), None);
    }
}
