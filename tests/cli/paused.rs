//! A process that is suspended for a while by SIGSTOP, as by a debugger or a frozen virtual
//! machine. Deadlines pass meanwhile, but what clients have sent or read before still
//! counts.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use sidewire_testing::{
    http::{bearer, handshake},
    process::{PATIENCE, Signal},
    relay::{Files, Relay, token},
    websocket::{BINARY, CONTINUATION, FIN, frame, ping},
};

/// Every timeout of the relay below.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Duration for which the relay is suspended. Its clock must advance, so the test really waits.
const PAUSE: Duration = Duration::from_millis(2500);

fn relay() -> Relay {
    let client = "handshake_timeout = \"2s\"\nmessage_timeout = \"2s\"\nwrite_timeout = \"2s\"";
    Relay::serve(Files::with(client, "level = \"debug\""))
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(relay.client).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn with_token() -> String {
    handshake(&bearer(&token("acme", "ann")))
}

/// Reads the head of an answer, which must have this status.
fn answered(stream: &mut TcpStream, status: &str) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap_or_else(|error| {
            panic!("{error} after {:?}", String::from_utf8_lossy(&head));
        });
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with(status), "{head}");
}

/// Suspends the relay, does something meanwhile, and resumes it once the deadlines have passed.
fn while_stopped(relay: &Relay, meanwhile: impl FnOnce()) {
    assert!(PAUSE > TIMEOUT);
    relay.process.signal(Signal::STOP);
    while !is_stopped(relay) {
        thread::yield_now();
    }
    meanwhile();
    thread::sleep(PAUSE);
    relay.process.signal(Signal::CONT);
}

/// Returns true if each of its threads is stopped (proc_pid_stat(5)).
fn is_stopped(relay: &Relay) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", relay.process.id())).unwrap();
    tasks.into_iter().all(|task| {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (_, state) = stat.rsplit_once(") ").unwrap();
        state.starts_with('T')
    })
}

#[test]
fn a_handshake_completed_during_a_pause_is_accepted() {
    let relay = relay();
    let mut stream = connect(&relay);
    let request = with_token();
    let (begin, rest) = request.as_bytes().split_at(40);
    stream.write_all(begin).unwrap();
    // Connections are served in order, so by then the relay has read the beginning.
    let mut other = connect(&relay);
    other.write_all(request.as_bytes()).unwrap();
    answered(&mut other, "HTTP/1.1 101 ");
    while_stopped(&relay, || stream.write_all(rest).unwrap());
    answered(&mut stream, "HTTP/1.1 101 ");
}

#[test]
fn a_message_completed_during_a_pause_is_accepted() {
    let relay = relay();
    let mut stream = connect(&relay);
    stream.write_all(with_token().as_bytes()).unwrap();
    answered(&mut stream, "HTTP/1.1 101 ");
    // The first fragment of an empty message, followed by a ping; its pong shows that
    // both are read.
    let (begin, rest) = (frame(BINARY, b""), frame(FIN | CONTINUATION, b""));
    stream.write_all(&[begin, ping(b"")].concat()).unwrap();
    let mut pong = [0; 2];
    stream.read_exact(&mut pong).unwrap();
    assert_eq!(pong, [0x8a, 0]);
    while_stopped(&relay, || stream.write_all(&rest).unwrap());
    // An empty message is refused with a message and not with a Close.
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[0], 0x82, "{head:x?}");
}
