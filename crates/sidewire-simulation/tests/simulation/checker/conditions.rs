//! Checks the preconditions of backends against the log.

use super::logs::{ModelLog, ModelLogs};
use crate::{
    history::{History, PostAnswer, PostCondition, PostRecord},
    topics::TopicBits,
};

/// Checks that the condition of an appended event held just before it.
pub(super) fn check_held(
    post: &PostRecord,
    answer: &PostAnswer,
    logs: &ModelLogs,
    history: &History,
) {
    let (Some(condition), [placed]) = (&post.condition, &answer.results[..]) else {
        return;
    };
    if placed.is_duplicate {
        return;
    }
    history.count("a precondition that held");
    let log = logs.log_of(post.tenant, placed.place.epoch);
    let before = placed.place.offset - 1;
    let topic = TopicBits::of(condition.topic);
    let Some(last) = condition.last.filter(|last| last.offset > 0) else {
        let mut there = log.offsets_relating(0..before, topic);
        let there = there.find(|offset| !log.may_be_evicted(*offset, answer.when));
        assert!(there.is_none(), "{there:?} was there: {post:?}");
        return;
    };
    assert_eq!(last.epoch, placed.place.epoch, "{post:?}");
    let is_its = log
        .get(last.offset)
        .is_some_and(|it| it.topics.meets(topic));
    assert!(is_its, "not of the topic: {post:?}");
    let later = log.offsets_relating(last.offset..before, topic).next();
    assert!(later.is_none(), "{later:?} was the last: {post:?}");
}

/// Returns true if the condition of a refused event may have failed.
pub(super) fn may_not_have_held(post: &PostRecord, answer: &PostAnswer, logs: &ModelLogs) -> bool {
    post.condition.as_ref().is_some_and(|condition| {
        let mut logs = logs.logs_of_tenant(post.tenant);
        logs.any(|(epoch, log)| may_not_hold(condition, epoch, log, answer))
    })
}

fn may_not_hold(
    condition: &PostCondition,
    epoch: u128,
    log: &ModelLog,
    answer: &PostAnswer,
) -> bool {
    let topic = TopicBits::of(condition.topic);
    let behind = condition.last.map_or(0, |last| last.offset);
    let mut later = log.offsets_relating(behind..log.head(), topic);
    let is_before = |offset: u64| {
        let sent = log.get(offset).map(|it| it.sent.moment);
        sent.is_some_and(|sent| sent < answer.when.moment)
    };
    let is_its = |last: u64| log.get(last).is_some_and(|it| it.topics.meets(topic));
    condition.last.is_some_and(|last| {
        last.epoch != epoch
            || last.offset > 0
                && (!is_its(last.offset) || log.may_be_evicted(last.offset, answer.when))
    }) || log.has_lost()
        || later.any(is_before)
}
