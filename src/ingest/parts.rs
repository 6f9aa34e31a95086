//! Answers that are made in parts, as fast as the backend reads them. Knows nothing about what is
//! in them.

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use hyper::StatusCode;

use crate::{
    http::{HttpResponse, json_stream_response, json_text_response},
    relay::ShardContext,
    scheduler::{Cost, TenantWork},
};

/// Number of parts that may be made ahead of sending.
const PARTS_AHEAD: usize = 1;

/// Size of a part, in bytes; a part may exceed it by one item. Making one takes about a quantum.
pub(super) const PART_BYTES: usize = 16 * 1024;

/// A JSON document that is made part by part.
pub(super) trait DocumentParts {
    /// Makes the next part of the document; `None` after the last one.
    fn next_part(&mut self) -> Option<Bytes>;

    /// Returns true if the last part has been made.
    fn is_complete(&self) -> bool;

    /// Returns the cost of making a part of this many bytes.
    fn making_cost(bytes: usize) -> Cost;
}

/// Returns an answer with the document, whose parts are charged to the tenant's flow. The document
/// is dropped when the answer is complete, or when the backend disconnects.
pub(super) fn answer_in_parts<D>(
    shard: &ShardContext,
    work: TenantWork,
    status: StatusCode,
    mut document: D,
) -> HttpResponse
where
    D: DocumentParts + 'static,
{
    let first = document.next_part().unwrap_or_default();
    work.charge(D::making_cost(first.len()));
    if document.is_complete() {
        // Most answers are short and announce their length.
        return json_text_response(status, first);
    }
    let (sender, body) = Channel::new(PARTS_AHEAD);
    drop(
        shard
            .turn_meter
            .spawn(send_parts(document, first, sender, work)),
    );
    json_stream_response(status, body)
}

/// Sends the parts until the last one or until the backend disconnects. Before each part except
/// the first, waits until the tenant is scheduled.
async fn send_parts<D: DocumentParts>(
    mut document: D,
    first: Bytes,
    mut sender: Sender<Bytes>,
    work: TenantWork,
) {
    let mut part = Some(first);
    while let Some(bytes) = part {
        if sender.send_data(bytes).await.is_err() {
            return;
        }
        work.wait_for_quantum().await;
        part = document.next_part();
        work.charge(Cost::CALL + D::making_cost(part.as_ref().map_or(0, Bytes::len)));
    }
}
