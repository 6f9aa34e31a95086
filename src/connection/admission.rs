//! Admits clients: the checks that a request passes, from the rates to the token and the room for one
//! more connection, and the refusals if it does not. Knows no hyper connection and no frames.

use std::{net::IpAddr, rc::Rc, time::Duration};

use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{HeaderName, HeaderValue},
};
use sidewire_protocol::{EnvelopeEncoding, ErrorCode, NamedValues};
use tokio::io::AsyncWriteExt as _;

use super::{
    admitted::AdmittedClient,
    authentication::authenticate_request,
    client_address,
    conversation::TopicsRequest,
    handshake::ConnectingPeer,
    http_stream::{
        EventsRequest, Framing, HTTP_STREAM_BYTES, HttpStream, PollBounds, PollFormat,
        ResponseHead, ReturnedStream,
    },
    offer::SubprotocolOffer,
    origin,
    read_ahead::ReadAheadStream,
    stream::Transport,
    task::run_http_stream,
    upgrade::{check_no_body, switching_protocols, websocket_key},
};
use crate::{
    auth::{Authenticator, Identity},
    config::ClientSection,
    http::{HttpProblem, HttpResponse, check_host, only_host},
    hub::TenantsFull,
    limits::{Limit, LimitExceeded, MessageCharge, UserKey},
    memory::{MemoryExceeded, MemoryReservation, MemoryUse},
    relay::{Relay, ShardContext},
    repeated::{RepeatedLine, log_repeated},
    transport::TransportKind,
};

/// The header to which each proxy appends the address that it connects for.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Text of the refusal when there is no memory for a connection.
pub(crate) const NO_MEMORY: &str =
    "the relay has no memory for another connection (limits.memory_max)";

/// The path of WebSockets.
const WEBSOCKET_PATH: &str = "/ws";

/// A client that was admitted without a WebSocket.
#[derive(Debug)]
pub(super) struct AdmittedRequest {
    client: AdmittedClient,
    subscribe: TopicsRequest,
    head: ResponseHead,
    bounds: PollBounds,
    framing: Framing,
    memory: MemoryReservation,
}

impl AdmittedRequest {
    /// Returns true if the request is a poll, behind which another request may follow.
    pub(super) fn is_poll(&self) -> bool {
        self.client.account.transport() == TransportKind::Poll
    }

    /// Returns the future that sends server-sent events until the stream ends; `held` is dropped then.
    /// `has_input` says that bytes came behind the request.
    pub(super) fn stream_events<S: Transport + 'static, H>(
        self: Box<Self>,
        shard: Rc<ShardContext>,
        stream: S,
        has_input: bool,
        held: H,
    ) -> impl Future<Output = ()> + use<S, H> {
        let name = {
            let live = shard.relay.live();
            stream.set_dead_peer_timeout(dead_peer_timeout(&live.config.client));
            live.schema.position_json_name()
        };
        let stream = ReadAheadStream::new(Box::new(stream));
        let stream = HttpStream::of_events(stream, self.head, &name, has_input);
        let held = (held, self.memory);
        run_http_stream(
            shard,
            self.client,
            Box::new(stream),
            self.subscribe,
            None,
            held,
        )
    }

    /// Answers a poll. Returns the byte stream if another request may follow.
    pub(super) async fn answer_poll(
        self: Box<Self>,
        shard: &Rc<ShardContext>,
        stream: ReadAheadStream,
        has_input: bool,
    ) -> Option<ReadAheadStream> {
        let (name, bytes_max) = {
            let live = shard.relay.live();
            let bytes_max = live.config.limits.outbox_bytes;
            (live.schema.position_json_name(), bytes_max)
        };
        let format = PollFormat::new(self.head, self.framing, self.bounds, bytes_max);
        let returned = ReturnedStream::default();
        let place = Rc::clone(&returned);
        let stream = Box::new(HttpStream::of_poll(stream, format, &name, has_input, place));
        let (shard, wait) = (Rc::clone(shard), Some(self.bounds.wait));
        run_http_stream(
            shard,
            self.client,
            stream,
            self.subscribe,
            wait,
            self.memory,
        )
        .await;
        let mut stream = returned.take()?;
        if self.framing == Framing::KeepAlive {
            return Some(stream);
        }
        drop(stream.shutdown().await);
        None
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
    let transport = TransportKind::WebSocket;
    let identity = identify(relay, request, &offer, transport).await?;
    let encoding = offer.encoding.unwrap_or_default();
    let admitted = admit_identity(shard, identity, address, encoding, transport)?;
    Ok((admitted, switching_protocols(key, offer.encoding)))
}

/// Admits a client without a WebSocket, or returns the reason to refuse it.
pub(super) async fn admit_events_request(
    shard: &Rc<ShardContext>,
    newcomer: ConnectingPeer,
    address: IpAddr,
    transport: TransportKind,
    request: &Request<Incoming>,
) -> Result<AdmittedRequest, HttpProblem> {
    let relay = &shard.relay;
    charge_newcomer(relay, newcomer, address)?;
    if request.method() != Method::GET {
        return Err(HttpProblem::method_not_allowed("GET, OPTIONS"));
    }
    check_not_draining(relay)?;
    check_host_and_origin(relay, request)?;
    let wanted = EventsRequest::parse(transport, request)?;
    let bounds = wanted.bounds;
    let offer = SubprotocolOffer::default();
    let identity = identify(relay, request, &offer, transport).await?;
    let topics_max = relay.live().config.limits.topics_per_subscribe;
    let subscribe = wanted.into_subscribe(&identity.grant, topics_max)?;
    let head = ResponseHead::new(relay, request.headers());
    let memory = relay.publisher.memory();
    let memory = memory
        .reserve(MemoryUse::ClientConnections, HTTP_STREAM_BYTES)
        .map_err(|MemoryExceeded| capacity_problem(relay, Limit::Memory))?;
    let json = EnvelopeEncoding::Json;
    Ok(AdmittedRequest {
        client: admit_identity(shard, identity, address, json, transport)?,
        subscribe,
        head,
        bounds,
        framing: Framing::of_request(request),
        memory,
    })
}

/// Authenticates the client of a request without a body, and charges its user.
async fn identify(
    relay: &Relay,
    request: &Request<Incoming>,
    offer: &SubprotocolOffer<'_>,
    transport: TransportKind,
) -> Result<Identity, HttpProblem> {
    let identity = authenticate_request(relay, request, offer).await?;
    check_no_body(request)?;
    // Fetching a key may have taken a while; a client admitted during a drain would not be told
    // of it.
    check_not_draining(relay)?;
    let user = user_key(&identity);
    let charged = match transport {
        TransportKind::WebSocket | TransportKind::Sse => relay.limits.charge_user_handshake(&user),
        // Like a Subscribe that is not the first of a connection.
        TransportKind::Poll => relay.limits.charge_message(&user, MessageCharge::User),
    };
    charged.map_err(|exceeded| handshake_limit_problem(relay, exceeded))?;
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
    if !transport.is_lasting() {
        // Would fill the log.
        return Ok(admitted);
    }
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
