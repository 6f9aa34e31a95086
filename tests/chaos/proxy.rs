//! A TCP proxy between clients and relay that injects faults and reads what the relay
//! sends. The fault of a connection, and the number of bytes before it, follow from a seed
//! and the connection's number.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sidewire_protocol::random::RandomSource;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::sleep,
};

use crate::wire::{Seen, Wire};

/// Small, so that the relay soon notices a stall.
const BUFFER_BYTES: u32 = 8 * 1024;

/// Upper bound of the bytes that the relay sends before the fault.
const BYTES_MAX: u64 = 60_000;

/// A fault of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Both ends are reset.
    Reset,
    /// Both ends are closed.
    Close,
    /// The client receives part of a frame, then the connection ends.
    MidFrame,
    /// The connection is reset before the answer to its handshake is complete.
    Handshake,
    /// Nothing is read from the relay for a while.
    Stall,
    /// All data is delayed, then the connection ends.
    Delay,
    /// The client is reset; the relay's side is reset much later.
    Ghost,
}

pub(crate) const FAULTS: [Fault; 7] = [
    Fault::Reset,
    Fault::Close,
    Fault::MidFrame,
    Fault::Handshake,
    Fault::Stall,
    Fault::Delay,
    Fault::Ghost,
];

/// The proxy, which runs until the test ends.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    relay: SocketAddr,
    random: RandomSource,
    is_calm: AtomicBool,
    faults: [AtomicU64; FAULTS.len()],
    seen: Mutex<Seen>,
}

impl Proxy {
    pub(crate) async fn start(relay: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            relay,
            random: RandomSource::from_seed(seed),
            is_calm: AtomicBool::new(false),
            faults: Default::default(),
            seen: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Stops injecting faults.
    pub(crate) fn calm_down(&self) {
        self.shared.is_calm.store(true, Ordering::Relaxed);
    }

    /// Returns how often a fault has occurred.
    pub(crate) fn count(&self, fault: Fault) -> u64 {
        self.shared.faults[fault as usize].load(Ordering::Relaxed)
    }

    /// Returns how many connections have met their fault.
    pub(crate) fn broken(&self) -> u64 {
        FAULTS.into_iter().map(|fault| self.count(fault)).sum()
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().unwrap()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    for number in 0.. {
        let (client, _) = listener.accept().await.unwrap();
        let plan = Plan::of(&shared.random, number);
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(relay) = connect(shared.relay).await else {
                return;
            };
            client.set_nodelay(true).unwrap();
            let carried = Carried {
                wire: Wire::default(),
                client,
                relay,
                plan,
                shared,
            };
            // Either end may have gone before its fault was due.
            let _carried = carried.run().await;
        });
    }
}

async fn connect(relay: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_nodelay(true)?;
    socket.connect(relay).await
}

/// The fault of one connection, and when it occurs.
#[derive(Debug, Clone, Copy)]
struct Plan {
    fault: Fault,
    bytes: usize,
    pause: Duration,
}

impl Plan {
    fn of(random: &RandomSource, number: usize) -> Self {
        let fault = FAULTS[number % FAULTS.len()];
        let (bytes_max, pause_max) = match fault {
            Fault::Handshake => (100, 0),
            Fault::Delay => (BYTES_MAX, 10),
            Fault::Stall => (BYTES_MAX, 2000),
            _ => (BYTES_MAX, 1000),
        };
        Self {
            fault,
            bytes: random.below(bytes_max) as usize,
            pause: Duration::from_millis(random.below(pause_max)),
        }
    }
}

/// A proxied connection: the client's side and the relay's side.
struct Carried {
    client: TcpStream,
    relay: TcpStream,
    plan: Plan,
    wire: Wire,
    shared: Arc<Shared>,
}

impl Carried {
    async fn run(mut self) -> io::Result<()> {
        self.carry().await?;
        match self.plan.fault {
            Fault::Reset | Fault::Handshake => {
                reset(self.client)?;
                reset(self.relay)
            }
            Fault::Close | Fault::Delay | Fault::Stall => Ok(()),
            Fault::MidFrame => reset(self.relay),
            Fault::Ghost => {
                reset(self.client)?;
                sleep(self.plan.pause).await;
                reset(self.relay)
            }
        }
    }

    /// Carries data both ways until the fault that ends the connection. An error is an end
    /// that the proxy did not cause.
    async fn carry(&mut self) -> io::Result<()> {
        let (mut from_client, mut to_client) = self.client.split();
        let (mut from_relay, mut to_relay) = self.relay.split();
        let mut delivery = Delivery {
            wire: &mut self.wire,
            plan: self.plan,
            shared: &self.shared,
            left: self.plan.bytes,
            has_stalled: false,
        };
        tokio::select! {
            ended = delivery.run(&mut from_relay, &mut to_client) => ended,
            ended = pass_on(&mut from_client, &mut to_relay) => ended,
        }
    }
}

/// The data from the relay to the client.
struct Delivery<'a> {
    wire: &'a mut Wire,
    plan: Plan,
    shared: &'a Shared,
    /// Bytes left before the fault.
    left: usize,
    has_stalled: bool,
}

impl Delivery<'_> {
    async fn run(&mut self, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let read = read_some(from, &mut buffer).await?;
            if self.plan.fault == Fault::Delay {
                sleep(self.plan.pause).await;
            }
            let mut chunk = &buffer[..read];
            while !chunk.is_empty() {
                if self.is_due() && !self.befall().await {
                    return Ok(());
                }
                // If the fault cannot occur at this byte, try the next one.
                let (now, later) = chunk.split_at(self.left.clamp(1, chunk.len()));
                self.wire.read(now, &mut self.shared.seen.lock().unwrap());
                to.write_all(now).await?;
                self.left = self.left.saturating_sub(now.len());
                chunk = later;
            }
        }
    }

    fn is_due(&mut self) -> bool {
        if self.shared.is_calm.load(Ordering::Relaxed) {
            self.left = usize::MAX;
        }
        self.left == 0
            && match self.plan.fault {
                Fault::Handshake => true,
                Fault::MidFrame => self.wire.is_inside_frame(),
                _ => !self.wire.is_in_handshake(),
            }
    }

    /// Applies the fault. Returns true if the connection continues, which is only after a
    /// stall, for as many bytes again.
    async fn befall(&mut self) -> bool {
        if self.has_stalled {
            return false;
        }
        self.shared.faults[self.plan.fault as usize].fetch_add(1, Ordering::Relaxed);
        self.has_stalled = self.plan.fault == Fault::Stall;
        if self.has_stalled {
            sleep(self.plan.pause).await;
            self.left = self.plan.bytes;
        }
        self.has_stalled
    }
}

/// Passes data on until it ends, which is an error.
async fn pass_on(from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let read = read_some(from, &mut buffer).await?;
        to.write_all(&buffer[..read]).await?;
    }
}

async fn read_some(from: &mut ReadHalf<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    match from.read(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => Ok(read),
    }
}

/// Resets a connection: data that was not delivered is lost.
fn reset(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
