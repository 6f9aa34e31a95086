//! The flags of `sidewire bench` and of its scenarios, and the plan that they describe.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};
use sidewire_bench::{
    BenchPlan, BenchTarget, Framing, LOST_AFTER, MeasureWindow, RelayTarget, Scenario,
    ScenarioFanout, TargetEndpoint, TargetProtocol, TokenMaker,
};
use sidewire_client::UrlSchemes;
use sidewire_protocol::clock::Clock;
use sidewire_protocol::{EnvelopeEncoding, TenantName};

use super::{
    super::{
        CommandFailure, client_tls, credential_of, schema_args::SchemaOrConfigArgs,
        signing::SigningArgs,
    },
    KEY_VARIABLE,
};
use crate::auth::{NewToken, SigningKey, TokenRules};

/// The lifetime of tokens, longer than any run.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// The flags of `sidewire bench`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = HELP,
    subcommand_value_name = "SCENARIO",
    subcommand_help_heading = "Scenarios"
)]
pub struct BenchArgs {
    /// The scenario.
    #[command(subcommand)]
    pub scenario: BenchScenario,
}

const HELP: &str = "Examples:
  sidewire bench latency --secret-file jwt.secret --key-file ingest.key --rate 50
  sidewire bench throughput --secret-file jwt.secret --key-file ingest.key --server-pid 4242
  sidewire bench idle --connections 18000 --secret-file jwt.secret --server-pid 4242 --json
  sidewire bench ingest --batch 100 --key-file ingest.key
  sidewire bench latency --config sidewire.toml --secret-file jwt.secret --key-file ingest.key

A benchmark needs the secret that tokens are signed with, and an ingest key. It generates events of
the schema that the flags name, which needs an event with a topic that clients can subscribe to.
`sidewire bench SCENARIO --help` lists the flags of a scenario.

The load generator uses up to one core. If the relay runs on the same machine, pin each to a core
of its own, for example with `taskset -c 1 sidewire bench …`. If the generator used more than 90 %
of its core, it was the bottleneck itself, and the report says so.

Results go to standard output, everything else to standard error.
Exit status: 0 if nothing was lost, duplicated, out of order or refused; 3 if the token or key is
not accepted; 1 if anything else failed.";

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum BenchScenario {
    /// Measure latency at a fixed rate: from POST to each frame, and to the last one.
    Latency(LatencyArgs),
    /// Measure delivery at full load when many clients share a topic.
    Throughput(ThroughputArgs),
    /// Measure delivery at full load when each client has its own topic.
    Selective(SelectiveArgs),
    /// Measure the memory that idle connections use.
    Idle(IdleArgs),
    /// Measure how fast clients connect, authenticate and subscribe.
    Connect(ConnectArgs),
    /// Measure the cost of events that nobody subscribes to.
    Ingest(IngestArgs),
    /// Measure the cost of an event for 100 clients while few and while many are connected.
    Growth(GrowthArgs),
}

/// The relay to measure, and the credentials for it.
#[derive(Debug, clap::Args)]
pub struct CommonArgs {
    /// The URL of the relay's client listener; wss:// for TLS.
    #[arg(long, default_value = "ws://127.0.0.1:3000/ws")]
    pub url: String,
    /// The PEM file with the certificates to trust for the relay's certificate.
    /// Defaults to those that the system trusts; SSL_CERT_FILE replaces these.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub ca_file: Option<PathBuf>,
    /// The URL of the relay's ingest listener.
    #[arg(long, default_value = "http://127.0.0.1:3001")]
    pub ingest_url: String,
    /// The tenant.
    #[arg(long, default_value = "bench", value_parser = TenantName::parse)]
    pub tenant: TenantName,
    /// Spread the topics over this many tenants, named bench-0, bench-1 and so on.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub tenants: NonZeroUsize,
    /// The signing of the clients' tokens.
    #[command(flatten)]
    pub signing: SigningArgs,
    /// The schema of the relay.
    #[command(flatten)]
    pub schema: SchemaOrConfigArgs,
    /// The file with the ingest key.
    /// Defaults to the environment variable SIDEWIRE_INGEST_KEY, or no key if that is unset.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub key_file: Option<PathBuf>,
    /// The relay's process on this machine, to report its memory and CPU time.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Number of clients that connect concurrently.
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub concurrency: NonZeroUsize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// The encoding of the events that the clients receive.
    #[arg(long, value_enum, default_value_t = Encoding::Protobuf)]
    pub encoding: Encoding,
    /// Speak to the floor of benches/floor instead of a relay.
    #[arg(long, value_enum, hide = true)]
    pub floor: Option<Framing>,
}

/// The encoding of the events that clients receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Encoding {
    /// Protocol Buffers in binary frames.
    Protobuf,
    /// JSON in text frames.
    Json,
}

impl From<Encoding> for EnvelopeEncoding {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Protobuf => Self::Protobuf,
            Encoding::Json => Self::Json,
        }
    }
}

/// The flags for the time of measuring.
#[derive(Debug, clap::Args)]
pub struct WindowArgs {
    /// Time to measure.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Time to run before measuring.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
}

/// The flags for the connections and their topics.
#[derive(Debug, clap::Args)]
pub struct FanoutArgs {
    /// Number of clients.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// Number of topics; each client is subscribed to one.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub topics: NonZeroUsize,
}

/// The flag for the size of events.
#[derive(Debug, clap::Args)]
pub struct PayloadArgs {
    /// The size of a posted event in bytes.
    #[arg(long, value_name = "BYTES", default_value = "200")]
    pub payload: usize,
}

/// The flag that defines full load.
#[derive(Debug, clap::Args)]
pub struct FullLoadArgs {
    /// Maximum number of events that some client has not received yet.
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub outstanding: NonZeroUsize,
}

/// The flags of `latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench latency --connections 1000 --rate 50 --secret-file jwt.secret --key-file ingest.key")]
pub struct LatencyArgs {
    /// Events per second.
    #[arg(long, default_value = "50", value_parser = rate)]
    pub rate: f64,
    /// The connections.
    #[command(flatten)]
    pub fanout: FanoutArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// How long to warm up and to measure.
    #[command(flatten)]
    pub window: WindowArgs,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `throughput`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench throughput --connections 1000 --secret-file jwt.secret --key-file ingest.key")]
pub struct ThroughputArgs {
    /// The connections.
    #[command(flatten)]
    pub fanout: FanoutArgs,
    /// The load.
    #[command(flatten)]
    pub load: FullLoadArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// How long to warm up and to measure.
    #[command(flatten)]
    pub window: WindowArgs,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `selective`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench selective --connections 5000 --secret-file jwt.secret --key-file ingest.key")]
pub struct SelectiveArgs {
    /// Number of clients, and of topics.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// The load.
    #[command(flatten)]
    pub load: FullLoadArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// How long to warm up and to measure.
    #[command(flatten)]
    pub window: WindowArgs,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `idle`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench idle --connections 18000 --secret-file jwt.secret --server-pid 4242

Restart the relay before each run: a relay that had connections before keeps some of their memory
for new ones, so the figures would be too low.")]
pub struct IdleArgs {
    /// Number of clients; each subscribes to its own topic.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// Time to wait before reading the relay's memory.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub settle: Duration,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `connect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench connect --connections 1000 --concurrency 64 --secret-file jwt.secret

Opens that many connections, closes them, and repeats until the time is over. Only opening counts,
from the first packet to the last confirmation; closing, and waiting for the relay to settle
afterwards, do not.")]
pub struct ConnectArgs {
    /// Number of clients to open before closing them again.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// How long to warm up and to measure.
    #[command(flatten)]
    pub window: WindowArgs,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `ingest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench ingest --publishers 64 --batch 100 --key-file ingest.key")]
pub struct IngestArgs {
    /// Number of connections that post; each makes one call at a time.
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub publishers: NonZeroUsize,
    /// Number of events per call.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub batch: NonZeroUsize,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// How long to warm up and to measure.
    #[command(flatten)]
    pub window: WindowArgs,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// The flags of `growth`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench growth --few 1000 --many 18000 --secret-file jwt.secret --key-file ingest.key --server-pid 4242

100 clients share the topic of the events; every other client has its own topic. The blocks
alternate in one run of the relay: few, many, many, few, few, and so on.")]
pub struct GrowthArgs {
    /// Number of clients connected in half of the blocks.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub few: NonZeroUsize,
    /// Number of clients connected in the other half.
    #[arg(long, value_name = "COUNT", default_value = "18000")]
    pub many: NonZeroUsize,
    /// Number of blocks in each half.
    #[arg(long, value_name = "COUNT", default_value = "15")]
    pub blocks: NonZeroUsize,
    /// Time to measure in each block.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// Time to run before measuring in each block.
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// The load.
    #[command(flatten)]
    pub load: FullLoadArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// The flags that all scenarios share.
    #[command(flatten)]
    pub common: CommonArgs,
}

impl BenchScenario {
    /// Returns the plan, and true if the report is to be printed as JSON.
    pub(super) fn into_plan(self) -> Result<(BenchPlan, bool), CommandFailure> {
        if let Self::Growth(args) = &self
            && args.many <= args.few
        {
            return Err(CommandFailure::new("--many must be more than --few"));
        }
        let scenario = self.scenario();
        let (common, payload_bytes) = match self {
            Self::Latency(args) => (args.common, args.payload.payload),
            Self::Throughput(args) => (args.common, args.payload.payload),
            Self::Selective(args) => (args.common, args.payload.payload),
            Self::Ingest(args) => (args.common, args.payload.payload),
            Self::Growth(args) => (args.common, args.payload.payload),
            Self::Idle(args) => (args.common, 0),
            Self::Connect(args) => (args.common, 0),
        };
        common.into_plan(scenario, payload_bytes)
    }

    /// Returns the flags that all scenarios share.
    pub(super) fn common_args(&self) -> &CommonArgs {
        match self {
            Self::Latency(args) => &args.common,
            Self::Throughput(args) => &args.common,
            Self::Selective(args) => &args.common,
            Self::Ingest(args) => &args.common,
            Self::Growth(args) => &args.common,
            Self::Idle(args) => &args.common,
            Self::Connect(args) => &args.common,
        }
    }

    fn scenario(&self) -> Scenario {
        match self {
            Self::Latency(args) => Scenario::Latency {
                fanout: args.fanout.fanout(),
                rate: args.rate,
                window: args.window.window(),
            },
            Self::Throughput(args) => Scenario::Throughput {
                fanout: args.fanout.fanout(),
                outstanding: args.load.outstanding.get(),
                window: args.window.window(),
            },
            Self::Selective(args) => Scenario::Selective {
                connections: args.connections.get(),
                outstanding: args.load.outstanding.get(),
                window: args.window.window(),
            },
            Self::Idle(args) => Scenario::Idle {
                connections: args.connections.get(),
                settle: args.settle,
            },
            Self::Connect(args) => Scenario::Connect {
                connections: args.connections.get(),
                window: args.window.window(),
            },
            Self::Ingest(args) => Scenario::Ingest {
                publishers: args.publishers.get(),
                batch: args.batch.get(),
                window: args.window.window(),
            },
            Self::Growth(args) => args.scenario(),
        }
    }
}

impl GrowthArgs {
    fn scenario(&self) -> Scenario {
        Scenario::Growth {
            few: self.few.get(),
            many: self.many.get(),
            blocks: self.blocks.get(),
            outstanding: self.load.outstanding.get(),
            window: MeasureWindow {
                warmup: self.warmup,
                duration: self.duration,
            },
        }
    }
}

impl FanoutArgs {
    fn fanout(&self) -> ScenarioFanout {
        ScenarioFanout {
            connections: self.connections.get(),
            topics: self.topics.get(),
        }
    }
}

impl WindowArgs {
    fn window(&self) -> MeasureWindow {
        MeasureWindow {
            warmup: self.warmup,
            duration: self.duration,
        }
    }
}

impl CommonArgs {
    fn into_plan(
        self,
        scenario: Scenario,
        payload_bytes: usize,
    ) -> Result<(BenchPlan, bool), CommandFailure> {
        let speech = match self.floor {
            Some(framing) => TargetProtocol::Floor(framing),
            None => TargetProtocol::Relay(Box::new(RelayTarget {
                tenant: self.tenant,
                tenants: self.tenants.get(),
                tokens: self
                    .signing
                    .signing_key()?
                    .map(|key| token_maker(key, self.signing.token_rules())),
                ingest_key: credential_of(self.key_file.as_deref(), KEY_VARIABLE)?,
                encoding: self.encoding.into(),
            })),
        };
        let tls = client_tls(&self.url, self.ca_file.as_deref())?;
        let plan = BenchPlan {
            target: BenchTarget {
                clients: TargetEndpoint::from_url(&self.url, UrlSchemes::WEBSOCKET, tls)
                    .map_err(CommandFailure::new)?,
                ingest: TargetEndpoint::from_url(&self.ingest_url, UrlSchemes::INGEST, None)
                    .map_err(CommandFailure::new)?,
                speech,
            },
            scenario,
            payload_bytes,
            concurrency: self.concurrency.get(),
            server_pid: self.server_pid,
            lost_after: LOST_AFTER,
        };
        Ok((plan, self.json))
    }
}

fn token_maker(key: SigningKey, rules: TokenRules) -> TokenMaker {
    TokenMaker::new(move |tenant, user| {
        let token = NewToken {
            tenant,
            user,
            expires_at: Some(Clock::system().since_unix_epoch() + TOKEN_LIFETIME),
            topics: None,
            subscribe: None,
        };
        key.mint(&token, &rules)
    })
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is not a number".to_owned())?;
    if rate.is_finite() && rate > 0.0 {
        Ok(rate)
    } else {
        Err("must be more than 0".to_owned())
    }
}
