//! More clients than the process has file descriptors.

use std::{
    io::Read as _,
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use prost::Message as _;
use sidewire_client::{OpenError, PublishEncoding, RelayConnection, RelayMessage};
use sidewire_testing::{
    http::http,
    process::PATIENCE,
    relay::{Relay, TOPIC, log_line, subscribe, token},
    setting,
};
use tokio::time::{sleep, timeout};

use crate::{
    backend::envelope,
    kernel::cpu_seconds,
    site::{assert_unharmed, files, publisher},
};

/// File descriptors of the process; there are twice as many clients.
const DESCRIPTORS: usize = 256;

/// Duration for which the process is watched while the connected clients are silent, and the total
/// share of a core that it may use.
const WATCHED: Duration = Duration::from_secs(3);
const CPU_SHARE_MAX: f64 = 0.02;

const EVENTS: u64 = 50;

/// Starts a relay in a process with this limit on file descriptors.
pub(crate) fn serve_with(descriptors: usize) -> Relay {
    let files = files("", "", "");
    let serve = files.serve();
    let mut command = Command::new("sh");
    let limited = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
    command.args(["-c", &limited]).arg(serve.get_program());
    command.args(serve.get_args());
    command.env_remove("NOTIFY_SOCKET");
    command.env_remove("CREDENTIALS_DIRECTORY");
    Relay::started(files, command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_descriptors_the_relay_serves_open_clients_and_answers_backends() {
    let descriptors = setting("SIDEWIRE_DESCRIPTORS").unwrap_or(DESCRIPTORS);
    let relay = serve_with(descriptors);
    let message = "the file descriptor limit bounds the number of client connections";
    let line = relay.process.stderr_has(|log| log_line(log, message));
    let room = line["clients"].as_u64().unwrap() as usize;
    assert_eq!(line["descriptors"], descriptors);
    assert!(room >= descriptors / 2 && room < descriptors, "{room}");

    let (mut live, mut turned_away) = (Vec::new(), 0);
    for number in 0..2 * descriptors {
        let options = relay.options(&token("acme", &format!("user-{number}")));
        match RelayConnection::open(&options).await {
            Ok(mut client) => {
                subscribe(&mut client, TOPIC).await;
                live.push(client);
            }
            Err(OpenError::Refused(problem)) => {
                assert_eq!(problem.status, 503, "{problem:?}");
                turned_away += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((live.len(), turned_away), (room, 2 * descriptors - room));
    let exceeded = relay.metric("sidewire_limits_exceeded_total{limit=\"descriptors\"}");
    assert_eq!(exceeded as usize, turned_away);
    assert_eq!(relay.metric("sidewire_accept_errors_total"), 0.0);

    let (cpu, begun) = (cpu_seconds(relay.process.id()), Instant::now());
    sleep(WATCHED).await;
    let share = (cpu_seconds(relay.process.id()) - cpu) / begun.elapsed().as_secs_f64();
    println!(
        "{descriptors} descriptors, {room} clients, {turned_away} turned away; {share:.3} of a core at rest"
    );
    assert!(share <= CPU_SHARE_MAX, "{share}");

    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(http(relay.ops, health).starts_with("HTTP/1.1 200"));
    let publisher = publisher(&relay);
    for number in 0..EVENTS {
        let event = envelope(format!("event-{number}"), vec![TOPIC.to_owned()], "");
        let body = event.encode_to_vec();
        let answer = publisher.post("acme", body, PublishEncoding::Protobuf, &[], false);
        let answer = answer.await.unwrap();
        assert_eq!(answer.results[0].matched, Some(room as u64));
    }
    for client in &mut live {
        for offset in 1..=EVENTS {
            let received = timeout(PATIENCE, client.receive()).await.unwrap();
            let Ok(RelayMessage::Event(event)) = received else {
                panic!("{received:?}");
            };
            assert_eq!(event.position.unwrap().offset, offset);
        }
    }
    // A freed permit goes to another client.
    drop(live.pop());
    let options = relay.options(&token("acme", "late"));
    let late = async {
        loop {
            match RelayConnection::open(&options).await {
                Ok(client) => return client,
                Err(OpenError::Refused(_)) => sleep(Duration::from_millis(10)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    live.push(timeout(PATIENCE, late).await.unwrap());
    drop(live);
    assert_unharmed(relay).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_backends_leave_descriptors_to_operators_and_clients() {
    let relay = serve_with(DESCRIPTORS);
    let mut idle: Vec<_> = (0..DESCRIPTORS + 50)
        .map(|_| TcpStream::connect(relay.ingest).unwrap())
        .collect();
    let exceeded = "sidewire_limits_exceeded_total{limit=\"descriptors\"}";
    let turned_away = async {
        while relay.metric(exceeded) < 50.0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, turned_away).await.unwrap();
    assert_eq!(relay.metric("sidewire_accept_errors_total"), 0.0);
    let health = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert!(http(relay.ops, health).starts_with("HTTP/1.1 200"));
    // Half of the descriptors are for clients.
    let mut clients = Vec::new();
    for number in 0..DESCRIPTORS / 2 {
        let options = relay.options(&token("acme", &format!("user-{number}")));
        clients.push(RelayConnection::open(&options).await.unwrap());
    }
    drop(clients);
    // The last client received an answer.
    let mut answer = String::new();
    let mut last = idle.pop().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    last.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(idle);
    let event = envelope("event".to_owned(), vec![TOPIC.to_owned()], "").encode_to_vec();
    let publisher = publisher(&relay);
    let posted = async {
        let post = || publisher.post("acme", event.clone(), PublishEncoding::Protobuf, &[], false);
        while post().await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, posted)
        .await
        .expect("there is room again");
    assert_unharmed(relay).await;
}
