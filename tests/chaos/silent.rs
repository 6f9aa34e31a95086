//! Peers that connect from many addresses and send nothing.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use sidewire_client::RelayConnection;
use sidewire_testing::relay::token;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{interval, sleep},
};

use crate::{descriptors::serve_with, site::assert_unharmed};

/// So few that silent peers would take the permits of all clients within a moment.
const DESCRIPTORS: usize = 256;

/// Interval at which a silent peer connects, each time from the next address. Each would
/// hold its permit for `client.handshake_timeout`, which is 10 s.
const EVERY: Duration = Duration::from_millis(25);
const ADDRESSES: u8 = 8;

const HONEST: usize = 100;

async fn connect_from(address: Ipv4Addr, relay: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(relay).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_peers_of_other_addresses_delay_handshakes_by_a_second_at_most() {
    let relay = serve_with(DESCRIPTORS);
    let client = relay.client;
    let flood = tokio::spawn(async move {
        let (mut silent, mut ticks) = (Vec::new(), interval(EVERY));
        for number in 0_u32.. {
            ticks.tick().await;
            let last = u8::try_from(number % u32::from(ADDRESSES)).unwrap() + 2;
            silent.push(connect_from(Ipv4Addr::new(127, 0, 0, last), client).await);
        }
    });
    // By then all permits for handshakes are taken.
    let timed_out = || relay.metric("sidewire_handshakes_timed_out_total");
    let begun = Instant::now();
    while timed_out() == 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(9), "nobody makes way");
        sleep(Duration::from_millis(50)).await;
    }
    let mut took = Vec::new();
    let mut clients = Vec::new();
    for number in 0..HONEST {
        let options = relay.options(&token("acme", &format!("user-{number}")));
        let begun = Instant::now();
        clients.push(RelayConnection::open(&options).await.unwrap());
        took.push(begun.elapsed());
        sleep(EVERY).await;
    }
    flood.abort();
    took.sort();
    let p99 = took[HONEST * 99 / 100];
    println!(
        "{HONEST} handshakes: p50 {:?}, p99 {p99:?}; {} silent peers made way",
        took[HONEST / 2],
        timed_out()
    );
    assert!(p99 <= Duration::from_secs(1), "{p99:?}");
    drop(clients);
    assert_unharmed(relay).await;
}
