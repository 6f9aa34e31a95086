//! Renders the JSON of a call's events before they are appended, if the tenant has JSON
//! connections: this spares the shards the rendering during delivery, and keeps it outside the
//! tenant's lock.

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

/// Number of bytes of JSON after which a call's remaining events are left to the shard that
/// delivers them first, which renders them one by one: the JSON of a whole batch has no other
/// bound.
const RENDERED_AHEAD_MAX: usize = 8 << 20;

/// Renders the drafts' JSON if the tenant has a JSON connection.
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
            // They are rendered one at a time, so the largest one decides.
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

/// Renders drafts up to `RENDERED_AHEAD_MAX`. Skips an event that cannot be rendered: the
/// connections that should get it are closed on delivery.
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
