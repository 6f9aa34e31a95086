//! Parts that the relay's three HTTP listeners share: responses, problem documents, query strings
//! and bearer tokens; and the client side, which fetches a document from another server. Knows no
//! route.

mod bearer;
mod fetch;
mod header;
mod host;
mod problem;
mod query;
mod response;

pub use bearer::{BearerError, bearer_token};
pub use fetch::{FetchError, fetch_document};
pub use header::only_header;
pub use host::{ListenerKind, check_host, check_no_origin, only_host};
pub use problem::{HttpProblem, ItemProblem, PROBLEM_JSON};
pub use query::{QueryError, decode_percent, query_pairs};
pub use response::{
    HttpResponse, ResponseBody, json_response, json_stream_response, json_text_response,
    whole_response,
};
