//! Which schema an event was shown by as JSON: the one under which it came, to each client
//! and however often the schema was reloaded since.

use std::collections::BTreeMap;

use crate::simulation::{
    events::Serial,
    history::{History, Moment, Said},
    messages::Place,
};

/// What is known of the schema under which an event came: one of these revisions.
#[derive(Debug, Clone, Copy)]
struct Revisions {
    first: usize,
    last: usize,
}

/// Fails where an event was shown by another schema.
pub(super) fn check(history: &History) {
    // By its place too: an event that is posted again when its id is forgotten is stored again.
    let mut known: BTreeMap<(Serial, u64), Revisions> = BTreeMap::new();
    for connection in history.connections.borrow().iter() {
        for heard in &connection.heard {
            let Said::Event {
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
                .or_insert_with(|| came_under(history, serial, place));
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

/// Between the first call with it and the first answer that tells this place.
fn came_under(history: &History, serial: Serial, place: Place) -> Revisions {
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
