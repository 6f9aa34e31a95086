//! Admits clients: the checks that a request passes, from the rates to the token and the room for one
//! more connection, and the refusals if it does not. Knows no hyper connection and no frames.

use std::{net::IpAddr, rc::Rc, time::Duration};

use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};
use sidewire_protocol::{EnvelopeEncoding, ErrorCode, NamedValues};

use super::{
    admitted::AdmittedClient,
    authentication::authenticate_request,
    client_address,
    conversation::TopicsRequest,
    event_stream::{
        EVENT_STREAM_BYTES, EventStream, EventStreamRequest, FrameTranslator, ResponseHead,
    },
    handshake::ConnectingPeer,
    offer::SubprotocolOffer,
    origin,
    stream::Transport,
    task::run_event_stream,
    upgrade::{check_no_body, switching_protocols, websocket_key},
};
use crate::{
    auth::{Authenticator, Identity},
    config::ClientSection,
    http::{HttpProblem, HttpResponse, check_host, only_host},
    hub::{TenantsFull, TransportKind},
    limits::{Limit, LimitExceeded, UserKey},
    memory::{MemoryExceeded, MemoryReservation, MemoryUse},
    relay::{Relay, ShardContext},
    repeated::{RepeatedLine, log_repeated},
};

/// The header to which each proxy appends the address that it connects for.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Text of the refusal when there is no memory for a connection.
pub(crate) const NO_MEMORY: &str =
    "the relay has no memory for another connection (limits.memory_max)";

/// The path of WebSockets.
const WEBSOCKET_PATH: &str = "/ws";

/// A client that was admitted to a stream of server-sent events.
#[derive(Debug)]
pub(super) struct AdmittedStream {
    client: AdmittedClient,
    subscribe: TopicsRequest,
    head: ResponseHead,
    memory: MemoryReservation,
}

impl AdmittedStream {
    /// Returns the future that serves the client until the stream ends; `held` is dropped then.
    /// `has_read_ahead` says that bytes came behind the request.
    pub(super) fn run<S: Transport + 'static, H>(
        self: Box<Self>,
        shard: Rc<ShardContext>,
        stream: S,
        has_read_ahead: bool,
        held: H,
    ) -> impl Future<Output = ()> + use<S, H> {
        let Self {
            client,
            subscribe,
            head,
            memory,
        } = *self;
        let name = {
            let live = shard.relay.live();
            stream.set_dead_peer_timeout(dead_peer_timeout(&live.config.client));
            live.schema.position_json_name()
        };
        let translator = FrameTranslator::new(head, &name);
        let stream = EventStream::new(Box::new(stream), translator, has_read_ahead);
        let stream = Box::new(stream);
        run_event_stream(shard, client, stream, subscribe, (held, memory))
    }
}

/// Returns the time for which data of an event stream may stay unacknowledged. It is sent once in each
/// ping interval at least, so a dead peer is noticed within the idle timeout.
fn dead_peer_timeout(client: &ClientSection) -> Duration {
    let unacknowledged = client.idle_timeout.saturating_sub(client.ping_interval);
    // The kernel also counts the time for which a client does not read, which ends with this.
    unacknowledged.max(client.write_timeout)
}

/// Counts a refusal and logs it with these details.
pub(super) fn record_refusal(relay: &Relay, address: IpAddr, problem: &HttpProblem, detail: &str) {
    relay.metrics.handshake_refused(problem.status());
    let line = RepeatedLine::of_refused_handshake(problem.status());
    log_repeated!(line, %address, status = problem.status().as_u16(), detail);
}

/// Returns the address of the client, which a proxy may report.
pub(super) fn client_address(relay: &Relay, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let live = relay.live();
    let client = &live.config.client;
    if client.proxy_protocol {
        // Proxies have already reported it, before anything else.
        return peer.to_canonical();
    }
    let values = headers.get_all(X_FORWARDED_FOR).into_iter();
    let values = values.map(HeaderValue::as_bytes);
    client_address::forwarded_address(peer, values, &client.trusted_proxies)
}

/// Admits the client of a WebSocket and returns the response, or returns the reason to refuse it.
pub(super) async fn admit_websocket(
    shard: &Rc<ShardContext>,
    newcomer: ConnectingPeer,
    address: IpAddr,
    request: &Request<Incoming>,
) -> Result<(AdmittedClient, HttpResponse), HttpProblem> {
    let relay = &shard.relay;
    if request.uri().path() != WEBSOCKET_PATH {
        return Err(HttpProblem::no_such_path());
    }
    if request.method() != Method::GET {
        return Err(HttpProblem::method_not_allowed("GET"));
    }
    check_not_draining(relay)?;
    let key = websocket_key(request)?;
    charge_newcomer(relay, newcomer, address)?;
    check_host_and_origin(relay, request)?;
    let offer = SubprotocolOffer::parse(request.headers())
        .map_err(|error| HttpProblem::bad_request(error.to_string()))?;
    let identity = identify(relay, request, &offer).await?;
    let encoding = offer.encoding.unwrap_or_default();
    let admitted = admit_identity(shard, identity, address, encoding, TransportKind::WebSocket)?;
    Ok((admitted, switching_protocols(key, offer.encoding)))
}

/// Admits the client of an event stream, or returns the reason to refuse it.
pub(super) async fn admit_event_stream(
    shard: &Rc<ShardContext>,
    newcomer: ConnectingPeer,
    address: IpAddr,
    request: &Request<Incoming>,
) -> Result<AdmittedStream, HttpProblem> {
    let relay = &shard.relay;
    charge_newcomer(relay, newcomer, address)?;
    if request.method() != Method::GET {
        return Err(HttpProblem::method_not_allowed("GET, OPTIONS"));
    }
    check_not_draining(relay)?;
    check_host_and_origin(relay, request)?;
    let wanted = EventStreamRequest::parse(request)?;
    let identity = identify(relay, request, &SubprotocolOffer::default()).await?;
    let topics_max = relay.live().config.limits.topics_per_subscribe;
    let subscribe = wanted.into_subscribe(&identity.grant, topics_max)?;
    let head = ResponseHead::new(relay, request.headers());
    let memory = relay.publisher.memory();
    let memory = memory
        .reserve(MemoryUse::ClientConnections, EVENT_STREAM_BYTES)
        .map_err(|MemoryExceeded| capacity_problem(relay, Limit::Memory))?;
    let json = EnvelopeEncoding::Json;
    let client = admit_identity(shard, identity, address, json, TransportKind::Sse)?;
    Ok(AdmittedStream {
        client,
        subscribe,
        head,
        memory,
    })
}

/// Authenticates the client of a request without a body, and charges its user.
async fn identify(
    relay: &Relay,
    request: &Request<Incoming>,
    offer: &SubprotocolOffer<'_>,
) -> Result<Identity, HttpProblem> {
    let identity = authenticate_request(relay, request, offer).await?;
    check_no_body(request)?;
    // Fetching a key may have taken a while; a client admitted during a drain would not be told
    // of it.
    check_not_draining(relay)?;
    relay
        .limits
        .charge_user_handshake(&user_key(&identity))
        .map_err(|exceeded| handshake_limit_problem(relay, exceeded))?;
    Ok(identity)
}

fn user_key(identity: &Identity) -> UserKey {
    UserKey {
        tenant: identity.tenant.clone(),
        user: identity.user.clone(),
    }
}

/// Charges a request to the rate of its address and to that of all handshakes, before its token
/// is verified, which is what costs most in a handshake.
pub(super) fn charge_newcomer(
    relay: &Relay,
    newcomer: ConnectingPeer,
    address: IpAddr,
) -> Result<(), HttpProblem> {
    let of_address = match newcomer.is_address_counted {
        true => Ok(()),
        false => count_address(relay, address),
    };
    let charged = of_address.and_then(|()| match newcomer.is_counted {
        true => Ok(()),
        false => relay.limits.charge_handshake(),
    });
    charged.map_err(|exceeded| handshake_limit_problem(relay, exceeded))
}

/// Admits an authenticated client, or returns the reason to refuse it.
fn admit_identity(
    shard: &Rc<ShardContext>,
    identity: Identity,
    address: IpAddr,
    encoding: EnvelopeEncoding,
    transport: TransportKind,
) -> Result<AdmittedClient, HttpProblem> {
    let relay = &shard.relay;
    let who = user_key(&identity);
    let admitted = AdmittedClient::new(shard, identity, who, address, encoding, transport)
        .map_err(|limit| capacity_problem(relay, limit))?;
    let UserKey { tenant, user } = admitted.account.user_key();
    let connection = admitted.account.key();
    let (encoding, transport) = (encoding.name(), transport.name());
    log_repeated!(RepeatedLine::ClientConnected, %connection, %tenant, %user, %address, transport, encoding);
    Ok(admitted)
}

/// Charges a handshake to the rate of its address, unless that is a trusted proxy, from which
/// many clients come.
pub(super) fn count_address(relay: &Relay, address: IpAddr) -> Result<(), LimitExceeded> {
    let is_proxy = {
        let live = relay.live();
        client_address::is_trusted_proxy(address, &live.config.client.trusted_proxies)
    };
    if is_proxy {
        return Ok(());
    }
    relay.limits.charge_address_handshake(address)
}

fn check_not_draining(relay: &Relay) -> Result<(), HttpProblem> {
    if relay.is_draining() {
        return Err(HttpProblem::shutting_down(relay.retry_after()));
    }
    Ok(())
}

/// Refuses the requests of web pages that may not connect.
pub(super) fn check_host_and_origin(
    relay: &Relay,
    request: &Request<Incoming>,
) -> Result<(), HttpProblem> {
    let live = relay.live();
    let token_required = matches!(live.authenticator, Authenticator::Tokens(_));
    if token_required {
        only_host(request)?;
    } else {
        let remedy = "connect by localhost or an address, or set auth.mode = \"jwt\"";
        check_host(request, &[], remedy)?;
    }
    let origins = &live.config.client.origins;
    if !origin::is_allowed(request.headers(), origins, token_required) {
        return Err(HttpProblem::new(
            StatusCode::FORBIDDEN,
            ErrorCode::AuthorizationFailed,
            "this Origin is not allowed to connect",
        ));
    }
    Ok(())
}

/// Returns the refusal of a handshake that exceeds a rate limit.
fn handshake_limit_problem(relay: &Relay, exceeded: LimitExceeded) -> HttpProblem {
    relay.metrics.limit_exceeded(exceeded.limit);
    limit_problem(exceeded.limit, exceeded.to_string(), exceeded.retry_after)
}

/// Returns the refusal of a client for which the relay, its tenant, its user or its address is
/// full. Nobody knows when that will change.
fn capacity_problem(relay: &Relay, limit: Limit) -> HttpProblem {
    relay.metrics.limit_exceeded(limit);
    let detail = match limit {
        Limit::Tenants => TenantsFull.to_string(),
        Limit::Memory => NO_MEMORY.to_owned(),
        _ => format!("there are {limit}"),
    };
    limit_problem(limit, detail, relay.retry_after())
}

/// Returns 503 if the relay is full, 429 if only this client may have no more.
fn limit_problem(limit: Limit, detail: String, retry_after: Duration) -> HttpProblem {
    match limit {
        Limit::Connections | Limit::Tenants | Limit::Handshakes | Limit::Memory => {
            HttpProblem::unavailable(ErrorCode::RateLimitExceeded, detail, retry_after)
        }
        _ => HttpProblem::too_many_requests(detail, retry_after),
    }
}
