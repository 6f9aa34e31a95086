//! The JSON of a call's events, rendered before they are appended where the tenant has
//! connections that take it: so no shard has to while it delivers them, nor anybody under
//! the tenant's lock.

use std::mem;

use super::{body::no_memory, json::elsewhere};
use crate::{
    event::{Draft, RENDERED_AT_ONCE_MAX},
    http::Problem,
    memory::{MemoryExceeded, MemoryUse, Reservation},
    protocol::TenantName,
    relay::Shard,
    scheduler::{Cost, TenantWork},
};

/// When this many bytes of JSON are rendered for a call, the rest of its events are left to
/// the shard that delivers them first, which has them rendered one by one: nothing bounds
/// how much JSON a whole batch could have.
const RENDERED_AHEAD_MAX: usize = 8 << 20;

/// Renders the drafts' JSON, if a connection of the tenant takes it.
pub(super) async fn render(
    shard: &Shard,
    work: &TenantWork,
    tenant: &TenantName,
    mut drafts: Vec<Draft>,
    memory: &mut Reservation,
) -> Result<Vec<Draft>, Problem> {
    let relay = &shard.relay;
    if !relay.publisher.has_json(tenant) {
        return Ok(drafts);
    }
    let bytes: usize = drafts.iter().map(Draft::envelope_len).sum();
    let (drafts, rendered) = if bytes <= RENDERED_AT_ONCE_MAX {
        let rendered = render_all(&mut drafts);
        work.charge(Cost::JSON_BYTE.times(rendered.bytes));
        (drafts, rendered)
    } else {
        elsewhere(relay, work, move |_, memory| {
            // One after the other.
            let bytes = drafts.iter().map(Draft::decoded_memory_max).max();
            let _memory = memory.reserve(MemoryUse::Decoding, bytes.unwrap_or_default())?;
            let rendered = render_all(&mut drafts);
            Ok((mem::take(&mut drafts), rendered))
        })
        .await?
    };
    memory
        .grow_admitted(rendered.bytes)
        .map_err(|MemoryExceeded| no_memory(relay))?;
    shard.hub.tally().json_delivered.add(rendered.events);
    Ok(drafts)
}

#[derive(Default)]
struct Rendered {
    events: u64,
    bytes: usize,
}

/// Renders what may be rendered ahead. An event without JSON is left alone: connections
/// that should have it are closed where it is delivered.
fn render_all(drafts: &mut [Draft]) -> Rendered {
    let mut rendered = Rendered::default();
    for draft in drafts {
        if rendered.bytes >= RENDERED_AHEAD_MAX {
            break;
        }
        if draft.render_json().is_ok() {
            rendered.events += 1;
            rendered.bytes += draft.json_len();
        }
    }
    rendered
}
