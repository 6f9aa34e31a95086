//! Many TLS handshakes at once, over real sockets.

use std::{
    io::Write as _,
    net::TcpStream,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rcgen::generate_simple_self_signed;
use rustls::{
    ClientConnection, ServerConfig,
    pki_types::ServerName,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_local, yield_now},
};

use crate::{
    connection::{serve_tcp, testing::ConnectionFixture},
    tls,
};

/// Records the turn in which each handshake is computed: rustls asks for the certificate right
/// before it signs.
#[derive(Debug)]
struct NotesTurns {
    certificate: Arc<dyn ResolvesServerCert>,
    turn: AtomicU64,
    computed: Mutex<Vec<u64>>,
}

impl NotesTurns {
    fn computed(&self) -> Vec<u64> {
        self.computed.lock().unwrap().clone()
    }
}

impl ResolvesServerCert for NotesTurns {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let turn = self.turn.load(Ordering::Relaxed);
        self.computed.lock().unwrap().push(turn);
        self.certificate.resolve(hello)
    }
}

struct Server {
    fixture: ConnectionFixture,
    listener: TcpListener,
    notes: Arc<NotesTurns>,
    /// What a client sends first.
    hello: Vec<u8>,
}

impl Server {
    async fn start() -> Self {
        let made = generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
        let key = tls::parse_private_key(made.signing_key.serialize_pem().as_bytes()).unwrap();
        let config = tls::server_config(vec![made.cert.der().clone()], key).unwrap();
        let mut config = ServerConfig::clone(&config);
        let notes = Arc::new(NotesTurns {
            certificate: Arc::clone(&config.cert_resolver),
            turn: AtomicU64::new(0),
            computed: Mutex::default(),
        });
        config.cert_resolver = Arc::clone(&notes) as _;
        let fixture = ConnectionFixture::new();
        fixture.replace_settings(|live| live.tls = Some(Arc::new(config)));
        let trusting = tls::client_config(Some(made.cert.pem().as_bytes())).unwrap();
        let name = ServerName::try_from("relay.test").unwrap();
        let mut hello = Vec::new();
        ClientConnection::new(trusting, name)
            .unwrap()
            .write_tls(&mut hello)
            .unwrap();
        Self {
            fixture,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            notes,
            hello,
        }
    }

    /// Accepts a client that has sent its ClientHello.
    async fn accept(&self) -> (TcpStream, JoinHandle<()>) {
        let mut client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        client.write_all(&self.hello).unwrap();
        let (stream, peer) = self.listener.accept().await.unwrap();
        let shard = Rc::clone(&self.fixture.shard);
        let serving = spawn_local(serve_tcp(shard, stream, peer.ip(), (), ()));
        (client, serving)
    }
}

#[tokio::test(flavor = "local")]
async fn no_signature_is_computed_for_a_peer_that_has_left() {
    let server = Server::start().await;
    let mut serving = Vec::new();
    let (first, first_served) = server.accept().await;
    for _ in 0..300 {
        // Disconnected before the listener's runtime is asked for the next one.
        let (client, served) = server.accept().await;
        drop(client);
        serving.push(served);
    }
    for served in serving {
        served.await.unwrap();
    }
    while server.notes.computed().is_empty() {
        yield_now().await;
    }
    assert_eq!(server.notes.computed().len(), 1);
    assert!(!first_served.is_finished());
    drop(first);
    first_served.await.unwrap();
}

#[tokio::test(flavor = "local")]
async fn at_most_one_handshake_is_computed_before_all_other_tasks_run_again() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(server.accept().await);
    }
    while server.notes.computed().len() < clients.len() {
        server.notes.turn.fetch_add(1, Ordering::Relaxed);
        yield_now().await;
    }
    let computed = server.notes.computed();
    // The first is computed at once, and the second after all other tasks have run.
    let is_alone = computed.windows(3).all(|three| three[0] < three[2]);
    assert!(is_alone, "{computed:?}");
}
