//! Checks what clients without a WebSocket have received. What they lack is found by their claims.

use super::{ReceivedEvents, answers::GONE_AFTER, logs::ModelLogs};
use crate::history::{History, ResponseRecord, Timestamp};

pub(super) fn check(history: &History, logs: &ModelLogs, received: &mut ReceivedEvents) {
    for response in history.responses.borrow().iter() {
        let mut last = None;
        for event in &response.events {
            let log = logs.log_of(response.tenant, event.place.epoch);
            let logged = log.get(event.place.offset).expect("a logged event");
            assert_eq!(logged.serial, event.serial, "{event:?}");
            assert!(
                logged.topics.meets(response.topics),
                "{event:?} is for others than {response:?}"
            );
            assert!(logged.sent.moment < event.when.moment, "{event:?}");
            let offset = (event.place.epoch, event.place.offset);
            assert!(last < Some(offset), "{event:?} comes twice or too late");
            last = Some(offset);
            let place = (response.client, event.place);
            let had = received.by_client.insert(place, event.when.moment);
            assert!(had.is_none(), "{event:?} comes again: {response:?}");
        }
    }
}

impl ResponseRecord {
    /// Returns true if the relay may have had the connection open at some time between a call about
    /// the tenant and its answer.
    pub(super) fn may_be_open(&self, tenant: usize, sent: Timestamp, answered: Timestamp) -> bool {
        self.tenant == tenant
            && self.asked.moment < answered.moment
            && self.end.is_none_or(|end| end.time + GONE_AFTER > sent.time)
    }
}
