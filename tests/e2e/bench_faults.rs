//! The load generator against a server that breaks the promises of a relay: the report must
//! contain each fault under its own name.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use sidewire_bench::{
    BenchPlan, BenchReport, BenchTarget, Framing, MeasureWindow, Scenario, ScenarioFanout,
    TargetEndpoint, TargetProtocol,
};
use sidewire_client::UrlSchemes;
use sidewire_protocol::frame;

use crate::vocabulary::TestSchema;

/// The server's treatment of each event, given by its number, on the way to the only client.
type Conduct = fn(u64, &mut Client, Vec<u8>);

/// Number of the event that the server mistreats.
const FATAL: u64 = 10;

/// The client's connection, and the frames that are held back from it.
struct Client {
    stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    fn send(&mut self, frame: &[u8]) {
        // The client may have disconnected at the end of the run.
        let _sent = self.stream.write_all(frame);
    }
}

/// Starts a server for one client and one backend. Returns the addresses of its two listeners.
fn serve(conduct: Conduct) -> [SocketAddr; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap());
    thread::spawn(move || {
        let [clients, ingest] = listeners;
        let (mut backend, _) = ingest.accept().unwrap();
        let (stream, _) = clients.accept().unwrap();
        let mut client = Client {
            stream: shake_hands(stream),
            held: Vec::new(),
        };
        for number in 0.. {
            let mut head = [0; 8];
            if backend.read_exact(&mut head).is_err() {
                return;
            }
            let len = u32::from_le_bytes(head[..4].try_into().unwrap()) as usize;
            let mut envelope = vec![0; len - 4];
            backend.read_exact(&mut envelope).unwrap();
            conduct(number, &mut client, frame::binary_frame(&envelope).to_vec());
            let _sent = backend.write_all(&[6]);
        }
    });
    addresses
}

fn shake_hands(stream: TcpStream) -> TcpStream {
    let mut lines = BufReader::new(&stream).lines();
    while lines.next().unwrap().unwrap() != "" {}
    (&stream)
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        .unwrap();
    stream
}

fn run(conduct: Conduct) -> BenchReport {
    let [clients, ingest] = serve(conduct);
    let plan = BenchPlan {
        target: BenchTarget {
            clients: TargetEndpoint::from_url(
                &format!("ws://{clients}/ws"),
                UrlSchemes::WEBSOCKET,
                None,
            )
            .unwrap(),
            ingest: TargetEndpoint::from_url(&format!("http://{ingest}"), UrlSchemes::INGEST, None)
                .unwrap(),
            speech: TargetProtocol::Floor(Framing::Raw),
        },
        scenario: Scenario::Throughput {
            fanout: ScenarioFanout {
                connections: 1,
                topics: 1,
            },
            outstanding: 4,
            window: MeasureWindow {
                warmup: Duration::ZERO,
                duration: Duration::from_millis(400),
            },
        },
        payload_bytes: 200,
        concurrency: 1,
        server_pid: None,
        lost_after: Duration::from_millis(200),
    };
    let report =
        sidewire_bench::run(plan, &TestSchema::under_test().compile(), &mut |_| ()).unwrap();
    assert!(report.events > FATAL, "{report:?}");
    report
}

/// Returns the counts of lost, duplicated, reordered and foreign events, and of disconnects.
fn faults(conduct: Conduct) -> [u64; 5] {
    let report = run(conduct);
    let faults = [
        report.lost,
        report.duplicated,
        report.reordered,
        report.foreign,
        report.disconnects,
    ];
    assert_eq!(report.failure_summary().is_none(), faults == [0; 5]);
    faults
}

#[test]
fn a_server_without_faults_is_reported_without_faults() {
    assert_eq!(faults(|_, client, frame| client.send(&frame)), [0; 5]);
}

#[test]
fn an_event_that_never_arrives_is_lost() {
    let drops = |number, client: &mut Client, frame: Vec<u8>| {
        if number != FATAL {
            client.send(&frame);
        }
    };
    assert_eq!(faults(drops), [1, 0, 0, 0, 0]);
}

#[test]
fn events_that_stop_arriving_are_lost() {
    let report = run(|number, client, frame| {
        if number < 2 * FATAL {
            client.send(&frame);
        }
    });
    // No more than may be outstanding.
    assert_eq!((report.lost, report.deliveries), (4, 2 * FATAL));
    assert!(report.failure_summary().unwrap().contains("4 events lost"));
}

#[test]
fn an_event_that_arrives_twice_is_duplicated() {
    let doubles = |number, client: &mut Client, frame: Vec<u8>| {
        client.send(&frame);
        if number == FATAL {
            client.send(&frame);
        }
    };
    assert_eq!(faults(doubles), [0, 1, 0, 0, 0]);
}

#[test]
fn an_event_that_arrives_after_a_later_one_is_out_of_order() {
    let swaps = |number, client: &mut Client, frame: Vec<u8>| {
        if number == FATAL {
            client.held = frame;
        } else {
            client.send(&frame);
            let held = std::mem::take(&mut client.held);
            client.send(&held);
        }
    };
    assert_eq!(faults(swaps), [0, 0, 1, 0, 0]);
}

#[test]
fn an_event_that_was_never_posted_is_foreign() {
    let invents = |number, client: &mut Client, frame: Vec<u8>| {
        if number == FATAL {
            client.send(&frame::binary_frame(b"not of this run"));
        }
        client.send(&frame);
    };
    assert_eq!(faults(invents), [0, 0, 0, 1, 0]);
}

#[test]
fn a_connection_that_is_closed_is_reported_and_owed_nothing() {
    let closes = |number, client: &mut Client, frame: Vec<u8>| {
        if number < FATAL {
            client.send(&frame);
        } else if number == FATAL {
            client.send(&[0x88, 5, 0x0f, 0xa3, b'b', b'y', b'e']);
        }
    };
    assert_eq!(faults(closes), [0, 0, 0, 0, 1]);
    let complaint = run(closes).failure_summary().unwrap();
    assert!(
        complaint.contains("closed the connection with 4003 bye"),
        "{complaint}"
    );
}

#[test]
fn a_ping_is_answered() {
    let pings = |number, client: &mut Client, frame: Vec<u8>| {
        if number == FATAL {
            client.send(&[0x89, 2, b'h', b'i']);
            let mut pong = [0; 8];
            client.stream.read_exact(&mut pong).unwrap();
            assert_eq!(pong, [0x8a, 0x82, 0, 0, 0, 0, b'h', b'i']);
        }
        client.send(&frame);
    };
    assert_eq!(faults(pings), [0; 5]);
}
