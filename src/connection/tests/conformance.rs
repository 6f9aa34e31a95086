//! Autobahn's cases against the connection as it is, from handshake to close, of
//! which only the listener is another: it says what it hears. Run by
//! `scripts/conformance`, which brings the client along.

use std::{
    cell::{Cell, RefCell},
    env, fs,
    io::{self, IoSlice},
    path::Path,
    pin::Pin,
    process::Command,
    rc::Rc,
    task::{Context, Poll, ready},
    thread,
};

use serde_json::Value;
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
        handshake::shake_hands,
        task::{Connection, Listener, listen},
        testing::Bench,
        wire_testing::{CLOSE, PONG, TEXT},
    },
    protocol::frame,
};

/// All of Autobahn's but those of compression, which the relay does not offer.
const CASES: usize = 301;

/// More than the largest message of any case, 16 MiB.
const MESSAGE_MAX: usize = 32 << 20;

thread_local! {
    static ECHOED: Cell<u64> = const { Cell::new(0) };
}

/// Says what it hears, in frames that are made and queued as the relay's own are.
enum Echo {}

impl Listener for Echo {
    fn hear<S: Transport>(connection: &mut Connection<S, Self>, message: Message) {
        let mut echo = frame::binary(match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            other => panic!("{other:?} is for no listener"),
        });
        if message.is_text() {
            echo[0] = 0x80 | TEXT;
        }
        connection.outbox.push_reply(echo);
        ECHOED.set(ECHOED.get() + 1);
    }
}

#[test]
#[ignore = "needs a client: scripts/conformance"]
fn autobahns_cases_pass_and_every_echo_is_a_frame_of_the_relays_own_making() {
    let sent = Rc::new(RefCell::new(Sent::default()));
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .unwrap();
    runtime.block_on(async {
        let bench = Bench::with(raise_limits);
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
                    echo(&bench, accepted.unwrap().0, &sent);
                }
            }
        }
        bench.shard.relay.clients.close();
        bench.shard.relay.clients.wait().await;
        check_reports(reports.path());
        bench.check_nothing_is_left();
        check_frames(&sent.borrow(), bench.tally().frames_written.get());
    });
}

fn raise_limits(config: &mut Config) {
    config.client.message_max = MESSAGE_MAX;
    config.limits.outbox_bytes = 4 * MESSAGE_MAX;
}

/// Has the client go through its cases; whether all have passed.
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

fn echo(bench: &Bench, stream: TcpStream, sent: &Rc<RefCell<Sent>>) {
    let shard = Rc::clone(&bench.shard);
    let sent = Rc::clone(sent);
    stream.set_nodelay(true).unwrap();
    spawn_local(async move {
        // The client comes and goes once more, to ask for a name.
        if let Some((admitted, stream, read_ahead)) = shake_hands(Rc::clone(&shard), stream).await {
            let wire = Wire {
                stream,
                frame: FrameHead::default(),
                sent,
            };
            listen::<Echo, _, _>(shard, admitted, wire, read_ahead, ()).await;
        }
    });
}

fn check_reports(reports: &Path) {
    let index = fs::read(reports.join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let agents = index.as_object().unwrap().values();
    let cases: Vec<_> = agents
        .flat_map(|cases| cases.as_object().unwrap())
        .collect();
    let good = |word: &Value| matches!(word.as_str(), Some("OK" | "NON-STRICT" | "INFORMATIONAL"));
    for (case, result) in &cases {
        assert!(
            good(&result["behavior"]) && good(&result["behaviorClose"]),
            "{case}: {result}"
        );
    }
    assert_eq!(cases.len(), CASES);
}

/// tungstenite writes nothing but pongs and Closes: each other frame is an echo.
fn check_frames(sent: &Sent, written: u64) {
    assert!(sent.data > 0 && sent.pongs > 0 && sent.closes > 0, "{sent:?}");
    assert_eq!(sent.data, ECHOED.get(), "{sent:?}");
    assert_eq!(sent.data + sent.pongs + sent.closes, written, "{sent:?}");
}

/// The frames that have left whole.
#[derive(Debug, Default)]
struct Sent {
    data: u64,
    pongs: u64,
    closes: u64,
}

impl Sent {
    fn count(&mut self, opcode: u8) {
        match opcode {
            PONG => self.pongs += 1,
            CLOSE => self.closes += 1,
            _ => self.data += 1,
        }
    }
}

/// How far the frame has come that is on its way.
#[derive(Debug, Default)]
struct FrameHead {
    head: Vec<u8>,
    payload_left: usize,
}

impl FrameHead {
    /// Goes on over these bytes of a server's; tells the opcode of each frame that
    /// they end.
    fn walk(&mut self, mut bytes: &[u8], sent: &mut Sent) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.payload_left > 0 {
                let skipped = bytes.len().min(self.payload_left);
                self.payload_left -= skipped;
                bytes = &bytes[skipped..];
            } else {
                self.head.push(*first);
                bytes = rest;
                self.payload_left = match &self.head[..] {
                    [_, short @ 0..=125] => usize::from(*short),
                    [_, 126, a, b] => usize::from(u16::from_be_bytes([*a, *b])),
                    [_, 127, long @ ..] if long.len() == 8 => {
                        usize::try_from(u64::from_be_bytes(long.try_into().unwrap())).unwrap()
                    }
                    _ => continue,
                };
            }
            if self.payload_left == 0 {
                sent.count(self.head[0] & 0x0f);
                self.head.clear();
            }
        }
    }
}

/// A client's socket; what leaves through it is counted.
struct Wire {
    stream: TcpStream,
    frame: FrameHead,
    sent: Rc<RefCell<Sent>>,
}

impl Wire {
    fn sent(&mut self, slices: &[IoSlice<'_>], mut taken: usize) {
        for slice in slices {
            let now = taken.min(slice.len());
            self.frame.walk(&slice[..now], &mut self.sent.borrow_mut());
            taken -= now;
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
