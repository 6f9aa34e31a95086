//! The shards: one thread each, with an event loop of its own that owns the
//! connections that were given to it, for life.

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

use super::{handshakes::Permit, listener::LocalStream};
use crate::{
    connection,
    http::Via,
    hub::{LOOK_INTERVAL, ShardHub, ShardSeed},
    ingest,
    limits::{Arrival, Seat},
    memory::Reservation,
    outbox::OutboxLimits,
    protocol::close::Ending,
    relay::{Relay, Shard},
    repeated::{RepeatedLine, log_repeated},
};

/// How many connections may wait to be taken by a shard.
const ASSIGNMENTS_MAX: usize = 1024;

/// How long a shard may take to hear of a reload.
const RELOAD_PATIENCE: Duration = Duration::from_secs(5);

/// A connection, and whose it is.
#[derive(Debug)]
pub(super) enum Connection {
    /// A client's, from where it is, its place among the sockets, and what its handshake
    /// holds.
    Client(TcpStream, IpAddr, Seat, (Arrival, Permit)),
    /// A backend's, likewise, with its memory.
    Backend(LocalStream, (Seat, Arrival, Reservation)),
}

/// The shards of a relay.
#[derive(Debug)]
pub(super) struct Shards {
    handles: Vec<Handle>,
    /// How many have an event loop.
    up: watch::Receiver<usize>,
    failed: CancellationToken,
}

#[derive(Debug)]
struct Handle {
    orders: mpsc::Sender<Order>,
    load: Load,
    thread: JoinHandle<()>,
}

/// How many connections a shard has, and has coming.
#[derive(Debug, Clone, Default)]
struct Load(Arc<AtomicUsize>);

impl Load {
    fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn take_place(&self) -> Place {
        self.0.fetch_add(1, Ordering::Relaxed);
        Place { load: self.clone() }
    }
}

/// The index of the one with the fewest connections, the first of several.
fn least_loaded<'a>(loads: impl Iterator<Item = &'a Load>) -> Option<usize> {
    let (index, _) = loads.enumerate().min_by_key(|(_, load)| load.get())?;
    Some(index)
}

/// What a shard is told.
enum Order {
    Serve(Connection, Place),
    /// The token is held until all clients of the shard are told.
    Drain(TaskTrackerToken),
    /// The config or the keys are other ones now.
    Reloaded,
}

/// A connection's place on a shard, given back when it is dropped.
struct Place {
    load: Load,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.load.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shards {
    /// Starts a thread for each seed.
    pub(super) fn start(relay: &Arc<Relay>, seeds: Vec<ShardSeed>) -> io::Result<Self> {
        let failed = CancellationToken::new();
        let (up, ups) = watch::channel(0);
        let handles = seeds
            .into_iter()
            .enumerate()
            .map(|(id, seed)| {
                let (orders, inbox) = mpsc::channel(ASSIGNMENTS_MAX);
                let relay = Arc::clone(relay);
                let (up, guard) = (up.clone(), failed.clone().drop_guard());
                let thread = thread::Builder::new()
                    .name(format!("shard-{id}"))
                    .spawn(move || run(relay, seed, inbox, &up, guard))?;
                Ok(Handle {
                    orders,
                    load: Load::default(),
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

    /// Gives a connection to the shard that has the fewest.
    pub(super) async fn assign(&self, connection: Connection) {
        let loads = self.handles.iter().map(|handle| &handle.load);
        let Some(handle) = least_loaded(loads).and_then(|index| self.handles.get(index)) else {
            return;
        };
        let place = handle.load.take_place();
        // A shard that is gone has failed, and the relay ends for it.
        drop(handle.orders.send(Order::Serve(connection, place)).await);
    }

    /// Waits until all of them run. One that cannot has [failed](Self::failed).
    pub(super) async fn up(&self) {
        let all = self.handles.len();
        if self.up.clone().wait_for(|up| *up == all).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until a shard has ended, which none does by itself.
    pub(super) async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Has each shard look at what has changed in the config and the keys. One that is
    /// stuck is not waited for.
    pub(super) async fn reloaded(&self) {
        for handle in &self.handles {
            let told = handle.orders.send(Order::Reloaded);
            if timeout(RELOAD_PATIENCE, told).await.is_err() {
                tracing::error!("a shard does not hear of a reload");
            }
        }
    }

    /// Has the connection of every client that was let in closed, and waits until
    /// all are.
    pub(super) async fn drain(&self, clients: &TaskTracker) {
        for handle in &self.handles {
            let order = Order::Drain(clients.token());
            drop(handle.orders.send(order).await);
        }
        clients.close();
        clients.wait().await;
    }

    /// Ends the threads, and what is left on them.
    pub(super) fn stop(self) {
        for handle in self.handles {
            drop(handle.orders);
            // A panic there has been logged there.
            drop(handle.thread.join());
        }
    }
}

/// A shard's life.
fn run(
    relay: Arc<Relay>,
    seed: ShardSeed,
    orders: mpsc::Receiver<Order>,
    up: &watch::Sender<usize>,
    _failed: DropGuard,
) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        // For what takes long to read or to render. More would take cores away from shards.
        .max_blocking_threads(1)
        .build_local(LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(async {
            let hub = Rc::new(seed.grow());
            let shard = Rc::new(Shard::new(relay, Rc::clone(&hub)));
            up.send_modify(|up| *up += 1);
            let meter = Rc::clone(&shard.turn_meter);
            let measuring = Rc::clone(&meter);
            let measuring = spawn_local(async move { measuring.run().await });
            // A task of its own, so that neither takes the other's share of a turn:
            // events go on while everybody reconnects. It ends only by a fault,
            // since the relay holds a publisher.
            let inbox = meter.spawn(async move { hub.run(LOOK_INTERVAL).await });
            let alarms = Rc::clone(&shard.alarms);
            let alarms = meter.spawn(async move { alarms.run().await });
            let hub = Rc::clone(&shard.hub);
            let relief = meter.spawn(async move { hub.relieve_memory().await });
            let hub = Rc::clone(&shard.hub);
            let calls = meter.spawn(async move { hub.answer_calls().await });
            tokio::select! {
                biased;
                _ = measuring => {}
                _ = inbox => {}
                _ = alarms => {}
                _ = relief => {}
                _ = calls => {}
                () = meter.metered(obey(&shard, orders)) => {}
            }
        }),
        Err(error) => tracing::error!(%error, "a shard has no event loop"),
    }
}

async fn obey(shard: &Rc<Shard>, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Serve(connection, place) => {
                if let Err(error) = serve(Rc::clone(shard), connection, place) {
                    log_repeated!(RepeatedLine::NotRegistered, %error);
                }
            }
            Order::Reloaded => reloaded(shard),
            Order::Drain(told) => {
                end_all(&shard.hub, &shard.relay);
                drop(told);
            }
        }
    }
}

/// Tells those who hold a part of the config themselves, and the connections.
fn reloaded(shard: &Shard) {
    let limits = OutboxLimits::of(&shard.relay.live().config.limits);
    shard.outboxes.set_limits(limits);
    shard.hub.ring_all();
}

fn serve(shard: Rc<Shard>, connection: Connection, place: Place) -> io::Result<()> {
    let meter = Rc::clone(&shard.turn_meter);
    match connection {
        Connection::Client(stream, peer, seat, arrival) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let (evicted, metrics) = (arrival.1.evicted(), Arc::clone(&shard.relay.metrics));
            // In a box: it is large, and would be held twice otherwise.
            let served = connection::serve_tcp(shard, stream, peer, (place, seat), arrival);
            let served = Box::pin(served);
            meter.spawn(async move {
                // What was handed to a task of its own by then goes on.
                if evicted.run_until_cancelled(served).await.is_none() {
                    metrics.handshake_timed_out();
                }
            });
        }
        Connection::Backend(LocalStream::Tcp(stream), arrived) => {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            meter.spawn(serve_backend(shard, stream, Via::Tcp, place, arrived));
        }
        Connection::Backend(LocalStream::Unix(stream), arrived) => {
            let stream = tokio::net::UnixStream::from_std(stream)?;
            meter.spawn(serve_backend(
                shard,
                stream,
                Via::UnixSocket,
                place,
                arrived,
            ));
        }
    }
    Ok(())
}

async fn serve_backend<S>(
    shard: Rc<Shard>,
    stream: S,
    via: Via,
    place: Place,
    (seat, arrival, memory): (Seat, Arrival, Reservation),
) where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    ingest::serve(shard, stream, via, arrival).await;
    drop((place, seat, memory));
}

fn end_all(hub: &Rc<ShardHub>, relay: &Relay) {
    hub.end_all(|| Ending::Drain {
        retry_after: relay.retry_after(),
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shards_are_level_again_once_as_many_have_come_as_have_gone(
            gone in prop::collection::vec(any::<prop::sample::Index>(), 0..200),
        ) {
            let loads: [Load; 4] = Default::default();
            let mut places: Vec<Place> = Vec::new();
            let open = |places: &mut Vec<Place>| {
                let fewest = least_loaded(loads.iter()).unwrap();
                places.push(loads[fewest].take_place());
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
