//! The inspector: a page for people on the ops listener, from files inside the binary, and the
//! data calls of its script. It looks at the relay from outside: the path of an event does not
//! know it, and it costs nothing while nobody looks.

mod access;
mod dev;
mod events;
mod explain;
mod files;
mod overview;
mod query;
mod route;
mod tenants;

use std::{sync::Arc, time::Duration};

use hyper::{Method, Request, StatusCode, body::Incoming};
use serde::Serialize;
use sidewire_protocol::ErrorCode;
use tokio::task::spawn_blocking;

use self::{dev::DevInfo, route::DataCall};
use crate::{
    http::{HttpProblem, HttpResponse, json_response},
    hub::{ShardTimeout, TenantRegistry},
    relay::Relay,
    tally::ShardTally,
};

pub use dev::{DevAccess, DevAddresses};

/// The path of the page. Everything else of the inspector is below it.
pub const PAGE: &str = "/inspect";

/// `Retry-After` of a call that could not be answered.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The inspector of one relay.
#[derive(Debug)]
pub struct Inspector {
    relay: Arc<Relay>,
    tallies: Vec<Arc<ShardTally>>,
    registry: Arc<TenantRegistry>,
    dev: Option<(DevAccess, DevAddresses)>,
}

/// What the page needs to know before anything else.
#[derive(Serialize)]
struct SessionAnswer<'a> {
    version: &'static str,
    schema: String,
    body_max: usize,
    events_max: usize,
    dev: Option<DevInfo<'a>>,
}

impl Inspector {
    /// Creates the inspector. With `dev`, the page may publish events and make tokens.
    #[must_use]
    pub fn new(
        relay: Arc<Relay>,
        tallies: Vec<Arc<ShardTally>>,
        registry: Arc<TenantRegistry>,
        dev: Option<(DevAccess, DevAddresses)>,
    ) -> Self {
        Self {
            relay,
            tallies,
            registry,
            dev,
        }
    }

    /// Returns true if the inspector answers requests for this path.
    #[must_use]
    pub fn has_path(path: &str) -> bool {
        let below = path.strip_prefix(PAGE);
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }

    /// Answers a request for a path of the inspector.
    pub async fn answer(&self, request: Request<Incoming>) -> HttpResponse {
        let answered = self.answer_or_refuse(request).await;
        let mut response = answered.unwrap_or_else(HttpProblem::into_response);
        access::protect_response(&mut response);
        response
    }

    async fn answer_or_refuse(
        &self,
        request: Request<Incoming>,
    ) -> Result<HttpResponse, HttpProblem> {
        let live = self.relay.live_shared();
        access::check_page(&request, &live.config.ops.hosts)?;
        let path = request.uri().path();
        let Some(call) = route::data_path(path) else {
            let file = files::find(path).ok_or_else(HttpProblem::no_such_path)?;
            if !matches!(*request.method(), Method::GET | Method::HEAD) {
                return Err(HttpProblem::method_not_allowed("GET, HEAD"));
            }
            return Ok(file.response());
        };
        access::check_key(&request, live.inspector_key.as_ref())?;
        let call = DataCall::parse(call)?;
        if *request.method() != call.method() {
            return Err(HttpProblem::method_not_allowed(call.allowed_method()));
        }
        self.answer_call(call, request).await
    }

    async fn answer_call(
        &self,
        call: DataCall,
        request: Request<Incoming>,
    ) -> Result<HttpResponse, HttpProblem> {
        let relay = &self.relay;
        let query = request.uri().query();
        match call {
            DataCall::Session => Ok(self.show_session()),
            DataCall::Overview => Ok(json_response(StatusCode::OK, &self.overview())),
            DataCall::Schema => explain::show_schema(relay).await,
            DataCall::Tenants => tenants::list(relay, query).await,
            DataCall::Tenant(tenant) => tenants::show(relay, &tenant),
            DataCall::Connections(tenant) => tenants::list_connections(relay, &tenant, query).await,
            DataCall::Topics(tenant) => tenants::list_topics(relay, &tenant, query).await,
            DataCall::Events(tenant) => events::list_newest(relay, tenant, query).await,
            DataCall::Event(tenant, position) => events::show(relay, tenant, position).await,
            DataCall::Route(tenant) => explain::route(relay, &tenant, request).await,
            DataCall::Publish(tenant) => dev::publish(self.dev()?, relay, &tenant, request).await,
            DataCall::Token => dev::make_token(self.dev()?, relay, request).await,
        }
    }

    fn show_session(&self) -> HttpResponse {
        let live = self.relay.live();
        let answer = SessionAnswer {
            version: env!("CARGO_PKG_VERSION"),
            schema: live.schema.revision().to_string(),
            body_max: live.config.ingest.body_max,
            events_max: events::EVENTS_MAX,
            dev: self.dev.as_ref().map(DevInfo::from),
        };
        json_response(StatusCode::OK, &answer)
    }

    /// Returns what `sidewire dev` lets the page do.
    fn dev(&self) -> Result<&(DevAccess, DevAddresses), HttpProblem> {
        self.dev.as_ref().ok_or_else(|| {
            HttpProblem::new(
                StatusCode::NOT_FOUND,
                ErrorCode::NotFound,
                "only `sidewire dev` lets the inspector publish events and make tokens",
            )
        })
    }
}

/// Runs work that may take long on a thread that may block, so that the ops listener and the
/// shards go on.
async fn run_apart<T: Send + 'static>(
    relay: &Arc<Relay>,
    work: impl FnOnce(&Relay) -> T + Send + 'static,
) -> Result<T, HttpProblem> {
    let relay = Arc::clone(relay);
    let done = spawn_blocking(move || work(&relay)).await;
    done.map_err(|_| not_answered("the relay could not answer"))
}

fn shard_silent(error: ShardTimeout) -> HttpProblem {
    not_answered(&format!("{error} in time"))
}

fn not_answered(detail: &str) -> HttpProblem {
    HttpProblem::unavailable(ErrorCode::InternalError, detail, RETRY_AFTER)
}
