//! Renders the JSON of a call's events before they are appended, if the tenant has JSON
//! connections: this spares the shards the rendering during delivery, and keeps it outside the
//! tenant's lock.

use std::mem;

use sidewire_protocol::TenantName;

use super::{body::no_memory, json::run_offloaded};
use crate::{
    event::{EventDraft, RENDERED_AT_ONCE_MAX},
    http::HttpProblem,
    memory::{MemoryExceeded, MemoryReservation, MemoryUse},
    relay::ShardContext,
    scheduler::{Cost, TenantWork},
};

/// Number of bytes of JSON after which a call's remaining events are left to the shard that
/// delivers them first, which renders them one by one: the JSON of a whole batch has no other
/// bound.
const RENDERED_AHEAD_MAX: usize = 8 << 20;

/// Renders the drafts' JSON if the tenant has a JSON connection.
pub(super) async fn render_drafts(
    shard: &ShardContext,
    work: &TenantWork,
    tenant: &TenantName,
    mut drafts: Vec<EventDraft>,
    memory: &mut MemoryReservation,
) -> Result<Vec<EventDraft>, HttpProblem> {
    let relay = &shard.relay;
    if !relay.publisher.has_json_connection(tenant) {
        return Ok(drafts);
    }
    let bytes: usize = drafts.iter().map(EventDraft::envelope_len).sum();
    let (drafts, rendered) = if bytes <= RENDERED_AT_ONCE_MAX {
        let rendered = render_all(&mut drafts);
        work.charge(Cost::JSON_BYTE.times(rendered.bytes));
        (drafts, rendered)
    } else {
        run_offloaded(relay, work, move |_, memory| {
            // They are rendered one at a time, so the largest one decides.
            let bytes = drafts.iter().map(EventDraft::decoded_memory_max).max();
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
struct RenderTotals {
    events: u64,
    bytes: usize,
}

/// Renders drafts up to `RENDERED_AHEAD_MAX`. Skips an event that cannot be rendered: the
/// connections that should get it are closed on delivery.
fn render_all(drafts: &mut [EventDraft]) -> RenderTotals {
    let mut rendered = RenderTotals::default();
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
