//! A relay under test, and common operations of tests.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

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
use tokio::{net::UnixStream, task::JoinHandle, time::timeout};

use crate::{
    client::{TestClient, is_json_under_test},
    json_client::JsonClient,
    raw::{http, http_over},
    vocabulary::TestSchema,
};

/// Upper bound of every wait, so that a fault ends the test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The ingest key for all tenants.
pub const INGEST_KEY: &str = "ingest-key-of-the-tests";

/// The ingest key for the tenant `acme` only.
pub const ACME_KEY: &str = "ingest-key-for-acme-only";

/// The secret that the relay verifies tokens with.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

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
        if config.schema.files.is_empty() {
            config.schema.bundled = Some(schema.name().to_owned());
        }
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
        self.connect_bearing(&token(tenant, user)).await
    }

    /// Connects a client with this token. It uses JSON if the suite runs with JSON.
    pub async fn connect_bearing(&self, token: &str) -> TestClient {
        if is_json_under_test() {
            let client = JsonClient::open_with(self, token).await;
            return TestClient::json(client, Arc::clone(&self.schema));
        }
        self.connect_with(token.to_owned()).await.unwrap()
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
        let dropped: f64 = metrics
            .iter()
            .filter(|(series, _)| series.starts_with("sidewire_events_dropped_total"))
            .map(|(_, count)| count)
            .sum();
        let came: f64 = ["matched", "replayed", "relayed"]
            .map(|how| metrics[&format!("sidewire_events_{how}_total")])
            .iter()
            .sum();
        assert_eq!(
            came,
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
    mint(&new_token(tenant, user, lifetime, topics))
}

/// Returns a token that subscribes to these topics and is valid for an hour.
pub fn token_subscribing(tenant: &str, user: &str, subscribe: &[&str]) -> String {
    mint(&NewToken {
        subscribe: Some(topics_of(subscribe)),
        ..new_token(tenant, user, Duration::from_hours(1), None)
    })
}

fn new_token(tenant: &str, user: &str, lifetime: Duration, topics: Option<&[&str]>) -> NewToken {
    NewToken {
        tenant: TenantName::parse(tenant).unwrap(),
        user: UserName::parse(user).unwrap(),
        expires_at: Some(Clock::system().since_unix_epoch() + lifetime),
        topics: topics.map(topics_of),
        subscribe: None,
    }
}

fn topics_of(texts: &[&str]) -> Vec<Topic> {
    let topics = texts.iter().map(|text| Topic::parse(text).unwrap());
    topics.collect()
}

fn mint(token: &NewToken) -> String {
    signing_key().mint(token, &TokenRules::default()).unwrap()
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
