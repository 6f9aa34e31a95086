//! A relay under test, and common operations of tests.

use std::{
    collections::BTreeMap, fmt::Write as _, net::SocketAddr, num::NonZeroU32, sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use sidewire::{
    auth::{Algorithm, NewToken, Secret, SigningKey, TokenRules},
    config::{AuthKey, AuthMode, Config, IngestKeyEntry, ListenAddress},
    server::RelayServer,
    setup::RelaySetup,
};
use sidewire_client::{
    ClientOptions, Credential, EventPublisher, OpenError, PublishEncoding, PublishedEvent,
    RelayConnection,
};
use sidewire_protocol::{
    TenantName, Topic, UserName, clock::Clock, random::RandomSource, schema::Schema,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    client::{TestClient, is_json_under_test},
    json_client::JsonClient,
    vocabulary::TestSchema,
};

/// Upper bound of every wait, so that a fault ends the test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The ingest key for all tenants.
pub const INGEST_KEY: &str = "ingest-key-of-the-tests";

/// The ingest key for the tenant `acme` only.
pub const ACME_KEY: &str = "ingest-key-for-acme-only";

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Addresses of a relay; a Unix socket is replaced by an unused address.
pub struct TestAddresses {
    pub client: SocketAddr,
    pub ingest: SocketAddr,
    pub ops: SocketAddr,
}

/// A relay on ports chosen by the kernel, with two shards.
pub struct TestRelay {
    server: Option<RelayServer>,
    pub addresses: TestAddresses,
    /// Address or Unix socket of the listener for metrics and health.
    ops: ListenAddress,
    pub schema: Arc<Schema>,
    random: Arc<RandomSource>,
    _files: TempDir,
}

impl TestRelay {
    /// Starts a relay with the defaults, HS256 tokens and two ingest keys.
    pub fn start() -> Self {
        Self::with(|_| ())
    }

    /// Starts a relay with other settings.
    pub fn with(settings: impl FnOnce(&mut Config)) -> Self {
        Self::serving(TestSchema::under_test(), settings)
    }

    /// Starts a relay with this schema, whichever is under test, and other settings.
    pub fn serving(schema: TestSchema, settings: impl FnOnce(&mut Config)) -> Self {
        let files = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut config = Config::default();
        let any_port = "127.0.0.1:0".parse().unwrap();
        config.client.listen = any_port;
        config.ingest.listen = ListenAddress::Tcp(any_port);
        config.ops.listen = ListenAddress::Tcp(any_port);
        config.limits.shards = 2;
        // All clients of a test have the same address.
        config.limits.address_handshakes_per_minute = NonZeroU32::MAX;
        config.auth.keys = vec![AuthKey::Secret {
            file: file("jwt.secret", SECRET),
            algorithm: Algorithm::HS256,
            kid: None,
        }];
        let key = |name: &str, text: &str, tenants: Option<Vec<TenantName>>| IngestKeyEntry {
            name: name.to_owned(),
            key_file: file(name, text),
            tenants,
            burst: None,
            period: None,
        };
        config.ingest.keys = vec![
            key("all", INGEST_KEY, None),
            key(
                "acme",
                ACME_KEY,
                Some(vec![TenantName::parse("acme").unwrap()]),
            ),
        ];
        settings(&mut config);
        config.schema.bundled = Some(schema.name().to_owned());
        let setup = RelaySetup::new(config).unwrap();
        let schema = Arc::clone(&setup.live.schema);
        let server = RelayServer::start(setup).unwrap();
        let listening = server.addresses().clone();
        let address =
            |listen: &ListenAddress| listen.tcp_address().unwrap_or(([0, 0, 0, 0], 0).into());
        Self {
            addresses: TestAddresses {
                client: listening.client,
                ingest: address(&listening.ingest),
                ops: address(&listening.ops),
            },
            ops: listening.ops,
            server: Some(server),
            schema,
            random: Arc::new(RandomSource::from_seed(1)),
            _files: files,
        }
    }

    /// Starts a relay in desktop mode: no tokens.
    pub fn desktop() -> Self {
        Self::with(|config| {
            config.auth.mode = AuthMode::None;
            config.auth.keys.clear();
        })
    }

    /// Connects a client that may do anything in its tenant. It uses JSON if the suite runs
    /// with JSON.
    pub async fn connect(&self, tenant: &str, user: &str) -> TestClient {
        if is_json_under_test() {
            let client = JsonClient::open(self, tenant, user).await;
            return TestClient::json(client, Arc::clone(&self.schema));
        }
        self.connect_binary(tenant, user).await
    }

    /// Connects a binary client, for a test of bytes or of more events than JSON can be
    /// read in time.
    pub async fn connect_binary(&self, tenant: &str, user: &str) -> TestClient {
        self.connect_with(token(tenant, user)).await.unwrap()
    }

    /// Connects a client of the library with this token.
    pub async fn connect_with(&self, token: String) -> Result<TestClient, OpenError> {
        RelayConnection::open(&self.options().with_token(token))
            .await
            .map(TestClient::of)
    }

    /// Connects a client with a bare socket. The kernel's buffers for it are small, so that
    /// the relay soon notices if it does not read.
    pub async fn connect_raw(&self, tenant: &str, user: &str) -> RawClient {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(self.addresses.client).await.unwrap();
        let head = format!(
            "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
             Authorization: Bearer {}\r\n\r\n",
            token(tenant, user)
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = timeout(PATIENCE, read_answer(&mut stream)).await.unwrap();
        assert_eq!(answer.status, 101);
        RawClient {
            stream,
            unparsed: answer.body,
        }
    }

    /// Returns a client's options, without its token.
    pub fn options(&self) -> ClientOptions {
        let url = format!("ws://{}/ws", self.addresses.client);
        ClientOptions::new(url, Arc::clone(&self.random))
    }

    /// Returns a backend with the key for every tenant.
    pub fn backend(&self) -> EventPublisher {
        self.backend_with(Some(INGEST_KEY))
    }

    /// Returns a backend with this key.
    pub fn backend_with(&self, key: Option<&str>) -> EventPublisher {
        let url = format!("http://{}", self.addresses.ingest);
        EventPublisher::new(&url, key.map(Credential::new).as_ref()).unwrap()
    }

    /// Posts one event as JSON and returns the answer.
    pub async fn publish(&self, tenant: &str, event: Value) -> PublishedEvent {
        let answer = self
            .backend()
            .post(tenant, event.to_string(), PublishEncoding::Json, &[], false)
            .await
            .unwrap();
        assert_eq!((answer.status, answer.results.len()), (200, 1));
        answer.results.into_iter().next().unwrap()
    }

    /// Converts an envelope from JSON to bytes.
    pub fn envelope(&self, json: Value) -> Vec<u8> {
        self.schema
            .envelope_from_json(json.to_string().as_bytes())
            .unwrap()
    }

    /// Converts an envelope from bytes to JSON.
    pub fn json(&self, envelope: &[u8]) -> Value {
        self.schema.envelope_to_json(envelope).unwrap()
    }

    /// Returns the metrics: the value of each series, by its text.
    pub async fn metrics(&self) -> BTreeMap<String, f64> {
        let line = "GET /metrics HTTP/1.1\r\n";
        let answer = match &self.ops {
            ListenAddress::Tcp(address) => http(*address, line, "", b"").await,
            ListenAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.unwrap();
                http_over(stream, &format!("{line}Host: localhost\r\n\r\n"), b"").await
            }
        };
        assert_eq!(answer.status, 200);
        let series: BTreeMap<_, _> = answer
            .text()
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty())
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect();
        assert!(!series.is_empty());
        series
    }

    /// Waits until `holds` returns true for the metrics.
    pub async fn metrics_where(&self, holds: impl Fn(&BTreeMap<String, f64>) -> bool) {
        let waiting = async {
            while !holds(&self.metrics().await) {
                tokio::task::yield_now().await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!("the metrics never got there: {:#?}", self.metrics().await);
        }
    }

    /// Waits until nothing is in progress, and checks that the sums add up: each event that
    /// matched a connection was written to it or dropped with a reason.
    pub async fn check_at_rest(&self) {
        self.metrics_where(|metrics| metrics["sidewire_events_queued"] == 0.0)
            .await;
        let metrics = self.metrics().await;
        let dropped = metrics["sidewire_events_dropped_total{reason=\"too_slow\"}"]
            + metrics["sidewire_events_dropped_total{reason=\"closed\"}"];
        assert_eq!(
            metrics["sidewire_events_matched_total"] + metrics["sidewire_events_replayed_total"],
            metrics["sidewire_events_written_total"] + dropped,
            "{metrics:#?}"
        );
    }

    /// Starts to stop the relay as SIGTERM does, whatever is in progress. The handle
    /// returns true if all of its connections were closed in time.
    pub fn begin_drain(&mut self) -> JoinHandle<bool> {
        tokio::spawn(self.server.take().unwrap().drain())
    }

    /// Checks the relay's counters, and then stops it as SIGTERM does. Returns true if all
    /// of its connections were closed in time.
    pub async fn stop(mut self) -> bool {
        // Taken first, so that a failing check is the only failure.
        let server = self.server.take().unwrap();
        self.check_at_rest().await;
        server.drain().await
    }
}

impl Drop for TestRelay {
    /// No test may end without checking the sums.
    fn drop(&mut self) {
        if self.server.is_some() && !std::thread::panicking() {
            panic!("the relay was not stopped, so nobody has looked at what it counted");
        }
    }
}

/// Raises this process's limit on file descriptors to its maximum.
pub fn raise_descriptor_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
}

/// Returns a token signed with the relay's secret, valid for an hour.
pub fn token(tenant: &str, user: &str) -> String {
    token_with(tenant, user, Duration::from_hours(1), None)
}

/// Returns a token that is valid for `lifetime`, with a grant of these topics only.
pub fn token_with(tenant: &str, user: &str, lifetime: Duration, topics: Option<&[&str]>) -> String {
    let parse = |topics: &[&str]| topics.iter().map(|it| Topic::parse(it).unwrap()).collect();
    let token = NewToken {
        tenant: TenantName::parse(tenant).unwrap(),
        user: UserName::parse(user).unwrap(),
        expires_at: Some(Clock::system().since_unix_epoch() + lifetime),
        topics: topics.map(parse),
    };
    signing_key().mint(&token, &TokenRules::default()).unwrap()
}

/// Returns the key that signs the relay's tokens.
pub fn signing_key() -> SigningKey {
    SigningKey::from_secret(Algorithm::HS256, None, &Secret::new(SECRET)).unwrap()
}

/// Returns a token with these claims, signed with the relay's secret.
pub fn token_of(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key).unwrap()
}

/// An HTTP answer as received.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the problem document and returns its `code`.
    pub fn problem_code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], self.status);
        assert!(
            document["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty())
        );
        document["code"].as_str().unwrap().to_owned()
    }
}

/// Sends one HTTP request as written: `line` and the header lines include their line
/// endings. `Host` and `Content-Length` are added.
pub async fn http(address: SocketAddr, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut head = format!("{line}Host: {address}\r\n{headers}");
    if !body.is_empty() {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    head.push_str("\r\n");
    let stream = TcpStream::connect(address).await.unwrap();
    http_over(stream, &head, body).await
}

/// Sends a request with this complete head over a stream.
pub async fn http_over<S>(mut stream: S, head: &str, body: &[u8]) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The relay may answer and close before it has read everything.
    let _sent = stream.write_all(&[head.as_bytes(), body].concat()).await;
    timeout(PATIENCE, read_answer(&mut stream)).await.unwrap()
}

/// Reads one answer.
pub async fn read_answer(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    read_next_answer(stream, &mut Vec::new()).await
}

/// Reads one answer, and leaves the bytes after it in `unread`.
pub async fn read_next_answer(
    stream: &mut (impl AsyncRead + Unpin),
    unread: &mut Vec<u8>,
) -> Answer {
    let mut bytes = std::mem::take(unread);
    let head_len = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read_buf(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "no answer: {}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..head_len].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    if headers
        .get("transfer-encoding")
        .is_some_and(|it| it == "chunked")
    {
        let mut rest = bytes.split_off(head_len);
        let body = read_chunks(stream, &mut rest).await;
        *unread = rest;
        return Answer {
            status: status.unwrap(),
            headers,
            body,
        };
    }
    let body_len = headers
        .get("content-length")
        .map_or(0, |len| len.parse().unwrap());
    let mut body = bytes.split_off(head_len);
    while body.len() < body_len {
        let read = stream.read_buf(&mut body).await.unwrap();
        assert_ne!(read, 0, "the body is cut short");
    }
    *unread = body.split_off(body_len);
    Answer {
        status: status.unwrap(),
        headers,
        body,
    }
}

/// Reads a chunked body (RFC 9112, 7.1) that begins with `bytes`, and leaves the bytes
/// after it in `bytes`.
async fn read_chunks(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line_len = loop {
            if let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
                break end;
            }
            assert_ne!(
                stream.read_buf(bytes).await.unwrap(),
                0,
                "a chunk is cut short"
            );
        };
        let size = str::from_utf8(&bytes[..line_len]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let whole = line_len + 2 + size + 2;
        while bytes.len() < whole {
            assert_ne!(
                stream.read_buf(bytes).await.unwrap(),
                0,
                "a chunk is cut short"
            );
        }
        body.extend_from_slice(&bytes[line_len + 2..whole - 2]);
        bytes.drain(..whole);
        if size == 0 {
            return body;
        }
    }
}

/// A client's bare socket after its handshake: bytes are sent as a test writes them, and
/// nothing is read or answered unless the test does so.
pub struct RawClient {
    pub stream: TcpStream,
    unparsed: Vec<u8>,
}

/// A frame from the relay.
#[derive(Debug, PartialEq, Eq)]
pub struct RawFrame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl RawFrame {
    /// Returns the code of a Close frame.
    pub fn close_code(&self) -> Option<u16> {
        let code = self.payload.first_chunk()?;
        (self.opcode == 0x8).then(|| u16::from_be_bytes(*code))
    }
}

impl RawClient {
    /// Sends a frame, masked with zeros.
    pub async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let len = u8::try_from(payload.len()).unwrap();
        assert!(len <= 125);
        let head = [0x80 | opcode, 0x80 | len, 0, 0, 0, 0];
        let frame = [&head, payload].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    /// Reads the next frame. Returns `None` if the relay has ended the stream cleanly.
    pub async fn receive(&mut self) -> std::io::Result<Option<RawFrame>> {
        loop {
            if let Some(frame) = take_frame(&mut self.unparsed) {
                return Ok(Some(frame));
            }
            let reading = self.stream.read_buf(&mut self.unparsed);
            if timeout(PATIENCE, reading).await.expect("something comes")? == 0 {
                assert!(self.unparsed.is_empty(), "the stream ends in mid-frame");
                return Ok(None);
            }
        }
    }
}

fn take_frame(bytes: &mut Vec<u8>) -> Option<RawFrame> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (head_len, len) = match second {
        126 => (4, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        127 => (10, u64::from_be_bytes(*rest.first_chunk()?) as usize),
        len => (2, usize::from(len)),
    };
    if bytes.len() < head_len + len {
        return None;
    }
    let payload = bytes[head_len..head_len + len].to_vec();
    bytes.drain(..head_len + len);
    Some(RawFrame {
        opcode: first & 0x0f,
        payload,
    })
}
