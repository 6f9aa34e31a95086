//! What the page may do in `sidewire dev`: publish events, through the ingest listener as any
//! backend, and make tokens with the key that `dev` has generated.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use sidewire_protocol::{TenantName, Topic, UserName};
use tokio::time::timeout;

use super::{explain::require_json, not_answered, query::invalid};
use crate::{
    auth::{NewToken, Secret, SigningKey, TokenRules},
    http::{
        ClientConnection, FetchError, HttpProblem, HttpResponse, PROBLEM_JSON, json_response,
        tls_connector, whole_response,
    },
    ingest::read_body,
    relay::Relay,
};

/// Time limit for the ingest listener to answer.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Most bytes of an answer of the ingest listener: it repeats the topics of one event.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Most bytes of a request for a token.
const TOKEN_REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Lifetime of the tokens that the page makes.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// What `sidewire dev` hands to the inspector.
#[derive(Debug)]
pub struct DevAccess {
    /// Signs the tokens.
    pub signing: SigningKey,
    /// The key for the ingest listener.
    pub ingest_key: Secret,
    /// The program, for commands to paste.
    pub program: String,
    /// The flags of commands that name the schema, for commands to paste.
    pub schema_flags: String,
    /// The tenant that the page suggests.
    pub tenant: &'static str,
    /// The user that the page suggests.
    pub user: &'static str,
    /// The topic that the page suggests to follow, if an event needs a subscription.
    pub topic: Option<String>,
}

/// The addresses of the other listeners of `sidewire dev`.
#[derive(Debug, Clone, Copy)]
pub struct DevAddresses {
    /// The address for WebSocket clients.
    pub client: SocketAddr,
    /// The address for backends.
    pub ingest: SocketAddr,
}

/// What the page shows of `sidewire dev`.
#[derive(Serialize)]
pub(super) struct DevInfo<'a> {
    client_url: String,
    program: &'a str,
    schema_flags: &'a str,
    tenant: &'a str,
    user: &'a str,
    topic: Option<&'a str>,
}

impl<'a> From<&'a (DevAccess, DevAddresses)> for DevInfo<'a> {
    fn from((access, addresses): &'a (DevAccess, DevAddresses)) -> Self {
        Self {
            client_url: format!("ws://{}/ws", addresses.client),
            program: &access.program,
            schema_flags: &access.schema_flags,
            tenant: access.tenant,
            user: access.user,
            topic: access.topic.as_deref(),
        }
    }
}

/// A request for a token.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenRequest {
    tenant: String,
    user: String,
    /// The granted topics; `None` grants everything.
    topics: Option<Vec<String>>,
}

#[derive(Serialize)]
struct TokenAnswer {
    token: String,
    expires_at: u64,
}

/// Posts the event in the body to the ingest listener, and returns its answer.
pub(super) async fn publish(
    (access, addresses): &(DevAccess, DevAddresses),
    relay: &Relay,
    tenant: &TenantName,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpProblem> {
    require_json(&request)?;
    let query = request.uri().query().map(str::to_owned).unwrap_or_default();
    let bytes_max = relay.live().config.ingest.body_max;
    let (body, _memory) = read_body(request, bytes_max, relay).await?;
    let tenant = utf8_percent_encode(tenant.as_str(), NON_ALPHANUMERIC);
    let ingest = addresses.ingest;
    let uri = format!("http://{ingest}/v1/tenants/{tenant}/events?{query}");
    let uri: Uri = uri
        .parse()
        .map_err(|_| HttpProblem::bad_request("the query is not that of a URL"))?;
    let posted = timeout(PUBLISH_TIMEOUT, post(access, uri, body)).await;
    match posted {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(error)) => Err(not_answered(&format!(
            "the ingest listener failed: {error}"
        ))),
        Err(_) => Err(not_answered("the ingest listener did not answer in time")),
    }
}

async fn post(access: &DevAccess, uri: Uri, body: Bytes) -> Result<HttpResponse, FetchError> {
    let mut connection = ClientConnection::connect(&uri, tls_connector).await?;
    let host = uri.authority().map_or("localhost", |it| it.as_str());
    let key = [b"Bearer ", access.ingest_key.as_bytes()].concat();
    let headers = [
        (HOST, HeaderValue::from_str(host)),
        (CONTENT_TYPE, HeaderValue::from_str("application/json")),
        (AUTHORIZATION, HeaderValue::from_bytes(&key)),
    ];
    let path = uri.path_and_query().map_or("/", |it| it.as_str());
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = path.parse().unwrap_or_default();
    for (name, value) in headers {
        if let Ok(value) = value {
            request.headers_mut().insert(name, value);
        }
    }
    let response = connection.send(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    let body = body.collect().await;
    let body = body.map_err(|_| FetchError::TooBig(ANSWER_BYTES_MAX))?;
    let media_type = match status.is_success() {
        true => "application/json",
        false => PROBLEM_JSON,
    };
    Ok(whole_response(status, media_type, body.to_bytes()))
}

/// Makes a token for the tenant and user in the body.
pub(super) async fn make_token(
    (access, _): &(DevAccess, DevAddresses),
    relay: &Relay,
    request: Request<Incoming>,
) -> Result<HttpResponse, HttpProblem> {
    require_json(&request)?;
    let (body, _memory) = read_body(request, TOKEN_REQUEST_BYTES_MAX, relay).await?;
    let wanted: TokenRequest = serde_json::from_slice(&body)
        .map_err(|error| HttpProblem::bad_request(error.to_string()))?;
    let topics = wanted.topics.map(|topics| {
        let topics = topics.iter().map(|text| {
            Topic::parse(text).map_err(|error| invalid("topics", &format!("{text:?} {error}")))
        });
        topics.collect::<Result<Vec<_>, _>>()
    });
    let expires_at = relay
        .clock
        .since_unix_epoch()
        .saturating_add(TOKEN_LIFETIME);
    let token = NewToken {
        tenant: TenantName::parse(&wanted.tenant)
            .map_err(|error| invalid("tenant", &error.to_string()))?,
        user: UserName::parse(&wanted.user).map_err(|error| invalid("user", &error.to_string()))?,
        expires_at: Some(expires_at),
        topics: topics.transpose()?,
        subscribe: None,
    };
    let token = access
        .signing
        .mint(&token, &TokenRules::default())
        .map_err(|error| HttpProblem::bad_request(error.to_string()))?;
    let answer = TokenAnswer {
        token,
        expires_at: expires_at.as_secs(),
    };
    Ok(json_response(StatusCode::OK, &answer))
}
