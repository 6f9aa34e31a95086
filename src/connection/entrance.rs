//! Takes an accepted TCP connection to the stream that HTTP runs over: reads the PROXY header if
//! a proxy sends one, and performs the TLS handshake if the listener has a certificate. Knows no
//! HTTP.

use std::{io, net::IpAddr, pin::pin, rc::Rc, sync::Arc};

use rustls::ServerConfig;
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::server::TlsStream;

use super::{
    admission, client_address,
    handshake::{self, ConnectingPeer},
    proxy_header, tls_handshakes,
};
use crate::{
    limits::Limit,
    memory::MemoryUse,
    relay::ShardContext,
    repeated::{RepeatedLine, log_repeated},
    scheduler::Cost,
};

/// Number of bytes that an idle TLS session takes. Measured with 2,000 connections: 9,802 bytes
/// each, and 1,962 without TLS; after a message of 60 KB from each, 14,533 and 2,279.
const TLS_BYTES: usize = 12 * 1024;

/// Serves the client of an accepted connection from the first byte to the last; its conversation
/// is a task of its own. `peer` is the address that connects; `held` is dropped when the client
/// has gone, `arrival` when its handshake is answered.
pub async fn serve_tcp<H: 'static, A: 'static>(
    shard: Rc<ShardContext>,
    stream: TcpStream,
    peer: IpAddr,
    held: H,
    arrival: A,
) {
    let turn_meter = Rc::clone(&shard.turn_meter);
    let until = handshake::handshake_deadline(&shard);
    // The configuration at its arrival applies to the whole handshake.
    let tls = shard.relay.live().tls.clone();
    let Some((stream, peer)) =
        run_in_time(&shard, until, read_proxy_header(&shard, stream, peer)).await
    else {
        return;
    };
    // If the peer is a trusted proxy, the client's address is not known yet.
    let is_address_known = {
        let live = shard.relay.live();
        let client = &live.config.client;
        client.proxy_protocol || !client_address::is_trusted_proxy(peer, &client.trusted_proxies)
    };
    let newcomer = ConnectingPeer {
        peer,
        is_counted: tls.is_some(),
        is_address_counted: tls.is_some() && is_address_known,
    };
    let Some(tls) = tls else {
        if let Some(talk) =
            handshake::serve_stream_until(until, shard, stream, newcomer, held, arrival).await
        {
            turn_meter.spawn(talk);
        }
        return;
    };
    // Counted before TLS, which costs more than everything after it. A client over the limit gets
    // no answer, since that would need TLS.
    let counted = if is_address_known {
        admission::count_address(&shard.relay, peer)
    } else {
        Ok(())
    };
    if let Err(exceeded) = counted.and_then(|()| shard.relay.limits.charge_handshake()) {
        shard.relay.metrics.limit_exceeded(exceeded.limit);
        return;
    }
    // Without memory for TLS the client gets no answer either.
    let memory = shard.relay.publisher.memory();
    let Ok(memory) = memory.reserve(MemoryUse::Tls, TLS_BYTES) else {
        shard.relay.metrics.limit_exceeded(Limit::Memory);
        return;
    };
    let Some(stream) = run_in_time(&shard, until, start_tls(&shard, stream, tls)).await else {
        return;
    };
    let held = (held, memory);
    // Boxed, because it is large compared to what an idle connection holds otherwise.
    let stream = Box::new(stream);
    if let Some(talk) =
        handshake::serve_stream_until(until, shard, stream, newcomer, held, arrival).await
    {
        turn_meter.spawn(talk);
    }
}

/// Runs a part of the handshake; returns `None` if it fails or takes too long.
async fn run_in_time<T>(
    shard: &ShardContext,
    until: Instant,
    part: impl Future<Output = Option<T>>,
) -> Option<T> {
    let mut part = pin!(part);
    let Some(outcome) = handshake::run_until_deadline(until, part.as_mut()).await else {
        // Before the stream is dropped, so that a peer that sees it closed finds it counted.
        shard.relay.metrics.handshake_timed_out();
        return None;
    };
    outcome
}

/// Reads the PROXY header, if one is expected. Returns the connection and the client's address.
async fn read_proxy_header(
    shard: &ShardContext,
    mut stream: TcpStream,
    peer: IpAddr,
) -> Option<(TcpStream, IpAddr)> {
    let is_announced = {
        let live = shard.relay.live();
        let client = &live.config.client;
        client.proxy_protocol && client_address::is_trusted_proxy(peer, &client.trusted_proxies)
    };
    if !is_announced {
        return Some((stream, peer));
    }
    let read = {
        let reading = pin!(proxy_header::read_header(&mut stream));
        shard.handshakes.run(reading, Cost::CALL).await
    };
    match read {
        Ok(client) => Some((stream, client.unwrap_or(peer))),
        Err(error) => {
            if error.kind() == io::ErrorKind::InvalidData {
                shard.relay.metrics.proxy_header_malformed();
                log_repeated!(RepeatedLine::ProxyHeaderMissing, %peer);
            }
            None
        }
    }
}

async fn start_tls(
    shard: &ShardContext,
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> Option<TlsStream<TcpStream>> {
    match tls_handshakes::accept_tls(&shard.handshakes, stream, config).await {
        Ok(stream) => Some(stream),
        Err(error) => {
            shard.relay.metrics.tls_handshake_failed();
            log_repeated!(RepeatedLine::TlsHandshakeFailed, %error);
            None
        }
    }
}
