//! Reads bodies into events, for the fuzz targets.

use super::{
    BatchReader, EventDraft, HttpProblem, ParsedEvent, ReadLimits, Relay, Topic, drafts_or_errors,
    read_draft, read_event_unlimited,
};
use crate::ingest::json::{batch_from_json, check_draft_json, envelope_from_json};

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
) -> Result<EventDraft, HttpProblem> {
    let read = if is_json {
        read(relay, &envelope_from_json(relay, body)?, more_topics)?
    } else {
        read(relay, body, more_topics)?
    };
    check_draft_json(&relay.live(), &read.draft)?;
    Ok(read.draft)
}

fn read(relay: &Relay, envelope: &[u8], more_topics: &[Topic]) -> Result<ParsedEvent, HttpProblem> {
    let on_shard = read_draft(relay, envelope, more_topics, ReadLimits::ON_SHARD)?;
    match on_shard {
        Some(read) => Ok(read),
        None => read_event_unlimited(relay, envelope, more_topics),
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
) -> Result<Vec<EventDraft>, HttpProblem> {
    let encoded;
    let batch = if is_json {
        encoded = batch_from_json(relay, body)?;
        &encoded
    } else {
        body
    };
    let mut drafts = BatchReader::new(relay, batch)?;
    while !drafts.is_finished() {
        if let Some((index, envelope)) = drafts.read_part(relay, more_topics).large {
            drafts.record_result(index, read_event_unlimited(relay, envelope, more_topics));
        }
    }
    let (drafts, in_doubt, errors) = drafts.into_parts();
    let refused = in_doubt.iter().filter_map(|it| {
        let problem = check_draft_json(&relay.live(), drafts.get(it.draft)?).err()?;
        Some((it.index, problem))
    });
    let refused = refused.collect();
    drafts_or_errors(drafts, errors, refused)
}
