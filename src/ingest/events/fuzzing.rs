//! Reads bodies into events, for the fuzz targets.

use super::{Draft, Drafts, Problem, ReadEvent, ReadLimits, Relay, Topic, draft, finish, read_now};
use crate::ingest::json::{batch_from_json, check_now, envelope_from_json};

/// Reads the event of a call's body.
///
/// # Errors
///
/// If the call would be refused; returns its problem.
pub fn event(
    relay: &Relay,
    body: &[u8],
    is_json: bool,
    more_topics: &[Topic],
) -> Result<Draft, Problem> {
    let read = if is_json {
        read(relay, &envelope_from_json(relay, body)?, more_topics)?
    } else {
        read(relay, body, more_topics)?
    };
    check_now(relay, &read.draft)?;
    Ok(read.draft)
}

fn read(relay: &Relay, envelope: &[u8], more_topics: &[Topic]) -> Result<ReadEvent, Problem> {
    let on_shard = draft(relay, envelope, more_topics, ReadLimits::ON_SHARD)?;
    match on_shard {
        Some(read) => Ok(read),
        None => read_now(relay, envelope, more_topics),
    }
}

/// Reads the events of a batch call's body.
///
/// # Errors
///
/// If the call would be refused; returns its problem.
pub fn events(
    relay: &Relay,
    body: &[u8],
    is_json: bool,
    more_topics: &[Topic],
) -> Result<Vec<Draft>, Problem> {
    let encoded;
    let batch = if is_json {
        encoded = batch_from_json(relay, body)?;
        &encoded
    } else {
        body
    };
    let mut drafts = Drafts::new(relay, batch)?;
    while !drafts.is_read() {
        if let Some((index, envelope)) = drafts.read_some(relay, more_topics).large {
            drafts.add(index, read_now(relay, envelope, more_topics));
        }
    }
    let (drafts, in_doubt, errors) = drafts.into_parts();
    let refused = in_doubt.iter().filter_map(|it| {
        let problem = check_now(relay, drafts.get(it.draft)?).err()?;
        Some((it.index, problem))
    });
    let refused = refused.collect();
    finish(drafts, errors, refused)
}
