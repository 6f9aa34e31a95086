//! Checks that an event is rendered as JSON by the schema under which it was accepted, for each
//! client and regardless of later reloads.

use std::collections::BTreeMap;

use crate::{
    events::Serial,
    history::{History, Moment},
    messages::EventPlace,
    record::FrameContent,
};

/// The range of revisions that contains the schema under which an event was accepted.
#[derive(Debug, Clone, Copy)]
struct Revisions {
    first: usize,
    last: usize,
}

/// Panics if an event was rendered by another schema.
pub(super) fn check(history: &History) {
    // Keyed by offset too: an event that is posted again after its id is forgotten is stored again.
    let mut known: BTreeMap<(Serial, u64), Revisions> = BTreeMap::new();
    for connection in history.connections.borrow().iter() {
        for heard in &connection.heard {
            let FrameContent::Event {
                serial,
                place,
                shown_by: Some((first, last)),
                ..
            } = heard.what
            else {
                continue;
            };
            let moment = heard.when.moment;
            let came = known
                .entry((serial, place.offset))
                .or_insert_with(|| revisions_of(history, serial, place));
            came.last = came.last.min(history.revision_at(moment));
            (came.first, came.last) = (came.first.max(first), came.last.min(last));
            assert!(
                came.first <= came.last,
                "event {serial} is shown to client {} by a schema from {first} to {last}, not by its own: {came:?}",
                connection.client
            );
            if history.revision_at(moment) > came.last {
                history.count("an event whose schema was reloaded before a client had it as JSON");
            }
        }
    }
}

/// Returns the revisions in force between the first call with the event and the first answer that
/// names this position.
fn revisions_of(history: &History, serial: Serial, place: EventPlace) -> Revisions {
    let posts = history.posts.borrow();
    let with_it = || posts.iter().filter(|post| post.events.contains(&serial));
    let sent = with_it().map(|post| post.sent.moment).min();
    let taken = with_it().filter_map(|post| {
        let answer = post.answer.as_ref()?;
        let results = post.events.iter().zip(&answer.results);
        let mut its = results.filter(|(event, placed)| **event == serial && placed.place == place);
        its.next().map(|_| answer.when.moment)
    });
    Revisions {
        first: history.revision_at(sent.expect("it was posted")),
        last: history.revision_at(taken.min().unwrap_or(Moment::MAX)),
    }
}
