//! `GET /v1/tenants/{tenant}/presence`: lists who is present on some topics.

mod answer;

use hyper::StatusCode;
use sidewire_protocol::TenantName;

use self::answer::PresenceAnswer;
use super::{body::reserve_list, parameters::PresenceParameters, parts::answer_in_parts};
use crate::{
    http::{HttpProblem, HttpResponse},
    hub::{ListedPresence, TopicPage},
    relay::ShardContext,
    scheduler::{Cost, TenantWork},
};

/// Users that are looked up under the lock of a tenant's presence at once.
const USERS_PER_PART: usize = 32;

/// Memory that is reserved for each user of a page, in bytes: its name, and the list of its
/// messages. The messages themselves count as events.
const USER_BYTES: usize = 1024;

/// Lists the users on the topics.
pub(super) async fn list_presence(
    shard: &ShardContext,
    tenant: &TenantName,
    parameters: PresenceParameters,
) -> Result<HttpResponse, HttpProblem> {
    let memory = reserve_list(&shard.relay, parameters.limit, USER_BYTES)?;
    let work = shard.hub.work_queue().tenant_work(tenant);
    let page = read_page(shard, &work, tenant, parameters).await;
    let answer = PresenceAnswer::new(page, memory);
    Ok(answer_in_parts(shard, work, StatusCode::OK, answer))
}

/// Reads a page part by part. Between two parts others may change the presence, so a page is not
/// of a single moment.
async fn read_page(
    shard: &ShardContext,
    work: &TenantWork,
    tenant: &TenantName,
    parameters: PresenceParameters,
) -> ListedPresence {
    let PresenceParameters {
        topics,
        limit,
        after,
    } = parameters;
    let admin = shard.relay.publisher.admin();
    let mut page = ListedPresence {
        topics: Vec::new(),
        next: after,
    };
    let mut room = limit;
    loop {
        work.wait_for_quantum().await;
        let part_limit = room.min(USERS_PER_PART);
        let part = admin.list_presence(tenant, &topics, page.next.as_ref(), part_limit);
        let users: usize = part.topics.iter().map(|topic| topic.users.len()).sum();
        work.charge(Cost::CALL + Cost::TOPIC.times(topics.len()) + Cost::EVENT.times(users));
        append_topics(&mut page.topics, part.topics);
        page.next = part.next;
        room = room.saturating_sub(users);
        if room == 0 || page.next.is_none() {
            return page;
        }
    }
}

/// Appends the topics of a part, the first of which may be the last one of the part before.
fn append_topics<M>(topics: &mut Vec<TopicPage<M>>, part: Vec<TopicPage<M>>) {
    for page in part {
        match topics.last_mut() {
            Some(last) if last.topic == page.topic => last.users.extend(page.users),
            _ => topics.push(page),
        }
    }
}
