//! Clients that open connections and never complete a handshake, beside others that do.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use sidewire_client::RelayConnection;
use sidewire_testing::{
    process::PATIENCE,
    relay::{Relay, TOPIC, options, subscribe, token},
    setting,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::{interval, timeout},
};

use crate::site::{assert_unharmed, files};

/// As many again send one byte at a time.
const SILENT: usize = 200;
const SILENT_FULL: usize = 5_000;

/// In the gate the timeout is shorter.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
const HANDSHAKE_TIMEOUT_FULL: Duration = Duration::from_secs(10);

/// The machine may be busy.
const TOLERANCE: Duration = Duration::from_secs(1);
const DRIP_EVERY: Duration = Duration::from_millis(500);
const CONNECT_EVERY: Duration = Duration::from_millis(20);
const CONNECT_P99_MAX: Duration = Duration::from_secs(1);

/// Connections opened at once: the kernel queues no more for a listener.
const AT_ONCE: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_never_finish_a_request_are_dropped_in_time_and_delay_no_other() {
    let silent = setting("SIDEWIRE_SLOW").unwrap_or(SILENT);
    let handshake_timeout = if silent >= SILENT_FULL {
        HANDSHAKE_TIMEOUT_FULL
    } else {
        HANDSHAKE_TIMEOUT
    };
    let patience = handshake_timeout.as_millis();
    let client = format!("handshake_timeout = \"{patience}ms\"");
    let relay = Relay::serve(files(&client, "", ""));
    // A client that was connected before.
    let mut settled = RelayConnection::open(&options(&relay.client_url(), &token("acme", "ann")))
        .await
        .unwrap();
    subscribe(&mut settled, TOPIC).await;

    let opening = tokio::spawn(open_all(relay.client, silent));
    let honest = tokio::spawn(connect_until(
        relay.client_url(),
        Instant::now() + handshake_timeout,
    ));
    let slow = opening.await.unwrap();
    let mut lived = Vec::new();
    for client in slow {
        let life = timeout(handshake_timeout + PATIENCE, client).await;
        lived.push(life.expect("it stays").unwrap());
    }
    let longest = lived.iter().max().unwrap();
    assert!(
        *longest <= handshake_timeout + TOLERANCE,
        "one of {} stayed for {longest:?}",
        lived.len()
    );
    let mut took = honest.await.unwrap();
    took.sort();
    let p99 = took[took.len() * 99 / 100];
    println!(
        "slowloris: {silent} silent and {silent} dripping, gone after {longest:?} at the latest; \
         {} honest clients meanwhile, in with p99 {p99:?}",
        took.len()
    );
    assert!(p99 <= CONNECT_P99_MAX, "{p99:?}");
    let timed_out = relay.metric("sidewire_handshakes_timed_out_total");
    assert_eq!(timed_out, 2.0 * silent as f64);
    subscribe(&mut settled, TOPIC).await;
    drop(settled);
    assert_unharmed(relay).await;
}

/// Opens `silent` connections that send nothing and as many that send a byte now and then.
/// Returns for how long the relay kept each open.
async fn open_all(address: SocketAddr, silent: usize) -> Vec<JoinHandle<Duration>> {
    let mut open = Vec::new();
    let numbers: Vec<usize> = (0..2 * silent).collect();
    for some in numbers.chunks(AT_ONCE) {
        let opened = some.iter().map(|number| connect(address, *number));
        for (number, stream) in some.iter().zip(join_all(opened).await) {
            open.push(tokio::spawn(outlive(stream, number % 2 == 1)));
        }
    }
    open
}

/// Connects from one of several addresses, since each has a limited number of ports.
async fn connect(to: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    let host = u8::try_from(2 + number % 8).unwrap();
    socket.bind(([127, 0, 0, host], 0).into()).unwrap();
    timeout(PATIENCE, socket.connect(to))
        .await
        .unwrap()
        .unwrap()
}

/// Waits for the end of the connection. Returns how long that took.
async fn outlive(mut stream: TcpStream, drips: bool) -> Duration {
    let began = Instant::now();
    let head = "GET /ws HTTP/1.1\r\nHost: localhost\r\nX-Padding: ";
    let mut drops = head.bytes().chain(std::iter::repeat(b'x'));
    let mut ticks = interval(DRIP_EVERY);
    let mut read = [0; 256];
    loop {
        tokio::select! {
            biased;
            read = stream.read(&mut read) => {
                if matches!(read, Ok(0) | Err(_)) {
                    return began.elapsed();
                }
            }
            _ = ticks.tick(), if drips => {
                // The next read shows whether the connection is closed.
                drop(stream.write_all(&[drops.next().unwrap()]).await);
            }
        }
    }
}

/// Connects, subscribes and leaves, again and again. Returns how long each time took.
async fn connect_until(url: String, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut ticks = interval(CONNECT_EVERY);
    while Instant::now() < end {
        ticks.tick().await;
        let user = format!("user-{}", took.len());
        let began = Instant::now();
        let options = options(&url, &token("acme", &user));
        let mut connection = RelayConnection::open(&options).await.unwrap();
        subscribe(&mut connection, TOPIC).await;
        took.push(began.elapsed());
    }
    took
}
