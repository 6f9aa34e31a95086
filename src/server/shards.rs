//! The shard threads. Each runs an event loop that owns the connections assigned to it for
//! their whole life.

use std::{
    io,
    net::{IpAddr, TcpStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::future::select_all;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
    task::spawn_local,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{handshakes::HandshakePermit, listener::LocalStream};
use crate::{
    connection,
    http::ListenerKind,
    hub::{LOOK_INTERVAL, ShardBuilder},
    ingest,
    limits::{HandshakeGuard, SocketPermit},
    memory::MemoryReservation,
    relay::{Relay, ShardContext},
    repeated::{RepeatedLine, log_repeated},
};

/// Maximum number of connections that wait for a shard to take them.
const ASSIGNMENTS_MAX: usize = 1024;

/// Time limit for a shard to accept the notice of a reload.
const RELOAD_PATIENCE: Duration = Duration::from_secs(5);

/// An accepted connection, with the permits that it holds.
#[derive(Debug)]
pub(super) enum AcceptedConnection {
    /// A client's connection: the stream, the peer's address, the socket permit, and the guards
    /// that are held until the end of the handshake.
    Client(
        TcpStream,
        IpAddr,
        SocketPermit,
        (HandshakeGuard, HandshakePermit),
    ),
    /// A backend's connection: the stream, the socket permit, the guard that is held until the
    /// first call is answered, and the memory reservation.
    Backend(
        LocalStream,
        (SocketPermit, HandshakeGuard, MemoryReservation),
    ),
}

/// The shards of a relay.
#[derive(Debug)]
pub(super) struct ShardThreads {
    handles: Vec<ShardHandle>,
    /// Number of shards with a running event loop.
    up: watch::Receiver<usize>,
    failed: CancellationToken,
}

#[derive(Debug)]
struct ShardHandle {
    orders: mpsc::Sender<ShardMessage>,
    load: ShardLoad,
    thread: JoinHandle<()>,
}

/// Number of connections that a shard owns or is about to receive.
#[derive(Debug, Clone, Default)]
struct ShardLoad(Arc<AtomicUsize>);

impl ShardLoad {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take_permit(&self) -> ShardPermit {
        self.0.fetch_add(1, Ordering::Relaxed);
        ShardPermit { load: self.clone() }
    }
}

/// Returns the index of the lowest load; of several, the first.
fn least_loaded<'a>(loads: impl Iterator<Item = &'a ShardLoad>) -> Option<usize> {
    let (index, _) = loads.enumerate().min_by_key(|(_, load)| load.get())?;
    Some(index)
}

/// A message to a shard.
enum ShardMessage {
    Serve(AcceptedConnection, ShardPermit),
    /// Close the connections of all clients. The token is held until this has begun for each.
    Drain(TaskTrackerToken),
    /// The config or the keys have changed.
    Reloaded,
}

/// Counts a connection in a shard's load until it is dropped.
struct ShardPermit {
    load: ShardLoad,
}

impl Drop for ShardPermit {
    fn drop(&mut self) {
        self.load.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ShardThreads {
    /// Starts a thread for each shard.
    pub(super) fn start(relay: &Arc<Relay>, builders: Vec<ShardBuilder>) -> io::Result<Self> {
        let failed = CancellationToken::new();
        let (up, ups) = watch::channel(0);
        let handles = builders
            .into_iter()
            .enumerate()
            .map(|(id, builder)| {
                let (orders, inbox) = mpsc::channel(ASSIGNMENTS_MAX);
                let relay = Arc::clone(relay);
                let (up, guard) = (up.clone(), failed.clone().drop_guard());
                let thread = thread::Builder::new()
                    .name(format!("shard-{id}"))
                    .spawn(move || run_shard(id, relay, builder, inbox, &up, guard))?;
                Ok(ShardHandle {
                    orders,
                    load: ShardLoad::default(),
                    thread,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            handles,
            up: ups,
            failed,
        })
    }

    /// Assigns a connection to the shard with the fewest connections.
    pub(super) async fn assign(&self, connection: AcceptedConnection) {
        let loads = self.handles.iter().map(|handle| &handle.load);
        let Some(handle) = least_loaded(loads).and_then(|index| self.handles.get(index)) else {
            return;
        };
        let place = handle.load.take_permit();
        // Fails only if the shard has failed, in which case the relay shuts down.
        drop(
            handle
                .orders
                .send(ShardMessage::Serve(connection, place))
                .await,
        );
    }

    /// Waits until all shards run. If one [failed](Self::failed), waits for ever.
    pub(super) async fn wait_until_up(&self) {
        let all = self.handles.len();
        if self.up.clone().wait_for(|up| *up == all).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a shard ends, which happens only on failure.
    pub(super) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Notifies each shard that the config or the keys have changed. Does not wait longer than
    /// `RELOAD_PATIENCE` for a shard that is stuck.
    pub(super) async fn notify_reloaded(&self) {
        for (shard, handle) in self.handles.iter().enumerate() {
            let sent = handle.orders.send(ShardMessage::Reloaded);
            if timeout(RELOAD_PATIENCE, sent).await.is_err() {
                tracing::error!(
                    shard,
                    "shard did not take the reload within {RELOAD_PATIENCE:?}"
                );
            }
        }
    }

    /// Closes the connection of every admitted client, and waits until all are closed.
    pub(super) async fn drain(&self, clients: &TaskTracker) {
        for handle in &self.handles {
            let order = ShardMessage::Drain(clients.token());
            drop(handle.orders.send(order).await);
        }
        clients.close();
        clients.wait().await;
    }

    /// Stops the threads and drops the tasks that are left on them.
    pub(super) fn stop(self) {
        for handle in self.handles {
            drop(handle.orders);
            // A panic of the thread has been logged by the panic hook.
            drop(handle.thread.join());
        }
    }
}

/// Runs a shard until its channel of orders is closed.
fn run_shard(
    id: usize,
    relay: Arc<Relay>,
    builder: ShardBuilder,
    orders: mpsc::Receiver<ShardMessage>,
    up: &watch::Sender<usize>,
    _failed: DropGuard,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        // For reading and rendering that takes long. More threads would take cores from shards.
        .max_blocking_threads(1)
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let shard = Rc::new(ShardContext::new(relay, builder));
            up.send_modify(|up| *up += 1);
            let meter = Rc::clone(&shard.turn_meter);
            let measuring = Rc::clone(&meter);
            let measuring = spawn_local(async move { measuring.run().await });
            let tasks = shard.background_tasks(LOOK_INTERVAL);
            let tasks = tasks.map(|task| meter.spawn(task));
            tokio::select! {
                biased;
                _ = measuring => {}
                _ = select_all(tasks) => {}
                () = meter.metered(handle_orders(&shard, orders)) => {}
            }
        }),
        Err(error) => tracing::error!(shard = id, %error, "cannot start a shard's runtime"),
    }
}

async fn handle_orders(shard: &Rc<ShardContext>, mut orders: mpsc::Receiver<ShardMessage>) {
    while let Some(order) = orders.recv().await {
        match order {
            ShardMessage::Serve(connection, place) => {
                if let Err(error) = serve_connection(Rc::clone(shard), connection, place) {
                    log_repeated!(RepeatedLine::NotRegistered, %error);
                }
            }
            ShardMessage::Reloaded => shard.apply_reload(),
            ShardMessage::Drain(told) => {
                shard.end_clients();
                drop(told);
            }
        }
    }
}

fn serve_connection(
    shard: Rc<ShardContext>,
    connection: AcceptedConnection,
    place: ShardPermit,
) -> io::Result<()> {
    let meter = Rc::clone(&shard.turn_meter);
    match connection {
        AcceptedConnection::Client(stream, peer, seat, arrival) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let (evicted, metrics) = (arrival.1.eviction_token(), Arc::clone(&shard.relay.metrics));
            // Boxed, since the future is large and would otherwise be stored twice.
            let served = connection::serve_tcp(shard, stream, peer, (place, seat), arrival);
            let served = Box::pin(served);
            meter.spawn(async move {
                // Tasks that were spawned by then continue.
                if evicted.run_until_cancelled(served).await.is_none() {
                    metrics.handshake_timed_out();
                }
            });
        }
        AcceptedConnection::Backend(LocalStream::Tcp(stream), arrived) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            meter.spawn(serve_backend(
                shard,
                stream,
                ListenerKind::Tcp,
                place,
                arrived,
            ));
        }
        AcceptedConnection::Backend(LocalStream::Unix(stream), arrived) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            meter.spawn(serve_backend(
                shard,
                stream,
                ListenerKind::UnixSocket,
                place,
                arrived,
            ));
        }
    }
    Ok(())
}

async fn serve_backend<S>(
    shard: Rc<ShardContext>,
    stream: S,
    via: ListenerKind,
    place: ShardPermit,
    (seat, arrival, memory): (SocketPermit, HandshakeGuard, MemoryReservation),
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    ingest::serve(shard, stream, via, arrival).await;
    drop((place, seat, memory));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shards_are_balanced_again_once_closed_connections_are_replaced(
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let loads: [ShardLoad; 4] = Default::default();
            let mut places: Vec<ShardPermit> = Vec::new();
            let open = |places: &mut Vec<ShardPermit>| {
                let fewest = least_loaded(loads.iter()).unwrap();
                places.push(loads[fewest].take_permit());
            };
            for _ in 0..200 {
                open(&mut places);
            }
            for index in &gone {
                places.swap_remove(index.index(places.len()));
            }
            for _ in &gone {
                open(&mut places);
            }
            prop_assert_eq!(loads.map(|load| load.get()), [50; 4]);
        }
    }
}
