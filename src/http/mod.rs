//! Parts that the relay's three HTTP listeners share: responses, problem documents, query strings
//! and bearer tokens; and the client side, which sends requests to other servers. Knows no route.

mod bearer;
mod client;
mod fetch;
mod header;
mod host;
mod problem;
mod query;
mod request_id;
mod response;

pub use bearer::{BearerError, bearer_token};
pub use client::{ClientConnection, FetchError, USER_AGENT, read_document, tls_connector};
pub use fetch::fetch_document;
pub use header::only_header;
pub use host::{ListenerKind, check_host, check_no_origin, only_host};
pub use problem::{HttpProblem, ItemProblem, PROBLEM_JSON};
pub use query::{QueryError, QueryPairError, decode_percent, query_pairs};
pub use request_id::{RequestId, RequestIds, X_REQUEST_ID};
pub use response::{
    HttpResponse, ResponseBody, json_response, json_stream_response, json_text_response,
    whole_response,
};
