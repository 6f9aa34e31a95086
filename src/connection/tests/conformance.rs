//! Autobahn's cases against the real connection, from handshake to close, except that the message
//! handler is replaced by one that echoes. Run by `scripts/conformance`, which brings the client.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    env, fs,
    io::{self, IoSlice},
    net::IpAddr,
    path::Path,
    pin::Pin,
    process::Command,
    rc::Rc,
    task::{Context, Poll, ready},
    thread,
};

use serde_json::Value;
use sidewire_protocol::frame::{self, HEADER_BYTES_MAX};
use sidewire_testing::websocket::{CLOSE, PONG, parse_header};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::oneshot,
    task::spawn_local,
};
use tokio_tungstenite::tungstenite::Message;

use crate::{
    config::Config,
    connection::{
        Transport,
        handshake::{ConnectingPeer, Verdict, run_handshake},
        task::ConnectionTask,
        testing::ConnectionFixture,
    },
    outbox::Outbox,
};

/// All of Autobahn's cases except those of compression, which the relay does not offer.
const CASES: usize = 301;

/// More than the largest message of any case, 16 MiB.
const MESSAGE_MAX: usize = 32 << 20;

thread_local! {
    /// The headers of the queued echoes, by the outbox that holds them.
    static QUEUED: RefCell<HashMap<*const Outbox, VecDeque<Vec<u8>>>> = RefCell::default();
}

/// Echoes messages, in frames that are made and queued like the relay's own.
fn echo_message<S: Transport>(connection: &mut ConnectionTask<S>, message: Message) {
    let mut echo = frame::binary_frame(match &message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
        other => panic!("{other:?} has no handler"),
    });
    if message.is_text() {
        echo[0] = frame::TEXT;
    }
    let head = echo.iter().copied().take(HEADER_BYTES_MAX).collect();
    let outbox = Rc::as_ptr(connection.account.outbox());
    QUEUED.with_borrow_mut(|queued| queued.entry(outbox).or_default().push_back(head));
    connection.account.outbox().push_reply(echo);
}

#[test]
#[ignore = "needs a client: scripts/conformance"]
fn the_autobahn_cases_pass_and_the_relay_builds_every_echoed_frame() {
    let sent = Rc::new(RefCell::new(Sent::default()));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let fixture = ConnectionFixture::with_settings(raise_limits);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/ws", listener.local_addr().unwrap());
        let reports = tempfile::tempdir().unwrap();
        let mut done = attack(url, reports.path());
        loop {
            tokio::select! {
                biased;
                status = &mut done => {
                    assert!(status.unwrap(), "the client says that cases have failed");
                    break;
                }
                accepted = listener.accept() => {
                    let (stream, peer) = accepted.unwrap();
                    echo(&fixture, stream, peer.ip(), &sent);
                }
            }
        }
        fixture.shard.relay.clients.close();
        fixture.shard.relay.clients.wait().await;
        check_reports(reports.path());
        fixture.check_nothing_is_left();
        check_frames(&sent.borrow(), fixture.tally().frames_written.get());
    });
}

fn raise_limits(config: &mut Config) {
    config.client.message_max = MESSAGE_MAX;
    config.limits.outbox_bytes = 4 * MESSAGE_MAX;
}

/// Runs the client through its cases. Returns true if all have passed.
fn attack(url: String, reports: &Path) -> oneshot::Receiver<bool> {
    let client = env::var_os("SIDEWIRE_KOSOKU").expect("scripts/conformance says where it is");
    let mut command = Command::new(client);
    command
        .args(["-x", "12.*", "-x", "13.*", "-o"])
        .arg(reports)
        .arg(url);
    let (tell, done) = oneshot::channel();
    thread::spawn(move || tell.send(command.status().unwrap().success()));
    done
}

fn echo(fixture: &ConnectionFixture, stream: TcpStream, peer: IpAddr, sent: &Rc<RefCell<Sent>>) {
    let shard = Rc::clone(&fixture.shard);
    let sent = Rc::clone(sent);
    stream.set_nodelay(true).unwrap();
    spawn_local(async move {
        let newcomer = ConnectingPeer {
            peer,
            is_counted: false,
            is_address_counted: false,
        };
        let handshake = run_handshake(Rc::clone(&shard), stream, newcomer).await;
        let Some((Verdict::Admitted(admitted), stream, read_ahead)) = handshake else {
            panic!("the client is not let in");
        };
        let outbox = Rc::as_ptr(&admitted.outbox);
        let wire = Wire {
            stream,
            outbox,
            begun: Vec::new(),
            sent: Rc::clone(&sent),
        };
        let mut connection = ConnectionTask::new(shard, admitted, wire, &read_ahead);
        connection.test_handler = Some(echo_message);
        connection.run().await;
        drop(connection);
        let left = QUEUED.with_borrow_mut(|queued| queued.remove(&outbox));
        sent.borrow_mut().dropped += left.unwrap_or_default().len();
    });
}

fn check_reports(reports: &Path) {
    let index = fs::read(reports.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let agents = index.as_object().unwrap().values();
    let cases: Vec<_> = agents
        .flat_map(|cases| cases.as_object().unwrap())
        .collect();
    for (case, result) in &cases {
        for what in ["behavior", "behaviorClose"] {
            let is_good = matches!(
                result[what].as_str(),
                // A relay that sends nothing more after a violation is "non-strict", although a
                // message came before it.
                Some("OK" | "NON-STRICT" | "INFORMATIONAL")
            );
            assert!(is_good, "{case}: {result}");
        }
    }
    assert_eq!(cases.len(), CASES);
}

/// tungstenite writes only pongs and Closes, and each case that sends something or violates the
/// protocol has a Close.
fn check_frames(sent: &Sent, written: u64) {
    assert_eq!(sent.echoes + sent.pongs + sent.closes, written, "{sent:?}");
    let is_plenty = sent.echoes > 10_000 && sent.pongs > 30 && sent.closes >= CASES as u64;
    assert!(is_plenty && sent.dropped < 30, "{sent:?}");
}

/// Frames that have left completely.
#[derive(Debug, Default)]
struct Sent {
    echoes: u64,
    pongs: u64,
    closes: u64,
    /// Echoes that were queued when their connections ended.
    dropped: usize,
}

/// A client's socket. What leaves through it is counted and compared with what was queued.
struct Wire {
    stream: TcpStream,
    outbox: *const Outbox,
    /// The start of the frame that is being sent.
    begun: Vec<u8>,
    sent: Rc<RefCell<Sent>>,
}

impl Wire {
    fn sent(&mut self, slices: &[IoSlice<'_>], mut taken: usize) {
        for slice in slices {
            let now = taken.min(slice.len());
            self.begun.extend(&slice[..now]);
            taken -= now;
        }
        while let Some((opcode, place)) = parse_header(&self.begun).unwrap() {
            if self.begun.len() < place.end {
                break;
            }
            let frame: Vec<u8> = self.begun.drain(..place.end).collect();
            self.sent_frame(opcode, &frame[..place.start]);
        }
    }

    fn sent_frame(&self, opcode: u8, head: &[u8]) {
        let mut sent = self.sent.borrow_mut();
        match opcode {
            PONG => sent.pongs += 1,
            CLOSE => sent.closes += 1,
            _ => {
                let next = QUEUED.with_borrow_mut(|queued| {
                    let queue = queued.get_mut(&self.outbox)?;
                    queue.pop_front()
                });
                let next = next.expect("a frame that was not queued has left");
                assert!(
                    next.starts_with(head),
                    "{next:?} is queued, {head:?} leaves"
                );
                sent.echoes += 1;
            }
        }
    }
}

impl Transport for Wire {
    fn reset(&self) {
        self.stream.reset();
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let taken = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        self.sent(slices, taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
