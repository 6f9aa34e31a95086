//! The flags of `sidewire bench` and how its results are shown. What is measured,
//! and how, is the library's business.

use std::{env, fmt, io, num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::Subcommand;

use super::{Failure, credential, signing::Signing, write_result};
use crate::{
    bench::{
        self, BenchError, Fanout, Framing, Percentiles, Place, Plan, Relay, Report, Scenario,
        ServerUse, Speech, Target, Window,
    },
    config, ops,
    protocol::TenantName,
    schema::Schema,
};

/// Where the ingest key is looked for when no file is named.
const KEY_VARIABLE: &str = "SIDEWIRE_INGEST_KEY";

/// From this share of a core on the generator is taken for the limit.
const GENERATOR_SHARE_MAX: f64 = 0.9;

/// What to measure.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// The scenario.
    #[command(subcommand)]
    pub scenario: Command,
}

const HELP: &str = "Examples:
  sidewire bench latency --secret-file jwt.secret --key-file ingest.key --rate 50
  sidewire bench throughput --secret-file jwt.secret --key-file ingest.key --server-pid 4242
  sidewire bench idle --connections 18000 --secret-file jwt.secret --server-pid 4242 --json
  sidewire bench ingest --batch 100 --key-file ingest.key

It needs what a client and a backend need: the secret that tokens are signed with and an ingest
key. `sidewire bench SCENARIO --help` has the flags of each.

The generator takes up to one core. Where the target runs on the same machine give each a core of
its own, as with `taskset -c 1 sidewire bench …`; a generator that used more than 90 % of its core
was the limit itself, and is marked.

Results go to standard output, all else to standard error.
Exit status: 0 if nothing was lost, doubled, out of order or refused, 3 if the token or key is not
accepted, 1 if something else failed.";

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// How long events take at a rate: from POST to frame, and to the last of its clients.
    Latency(LatencyArgs),
    /// What is delivered at full load, where many clients share a topic.
    Throughput(ThroughputArgs),
    /// What is delivered at full load, where each client has a topic of its own.
    Selective(SelectiveArgs),
    /// The memory that connections take which do nothing.
    Idle(IdleArgs),
    /// How fast clients connect, prove who they are, subscribe and are confirmed.
    Connect(ConnectArgs),
    /// What events cost that nobody is subscribed to.
    Ingest(IngestArgs),
    /// What an event for 100 clients costs while few and while many are connected.
    Growth(GrowthArgs),
}

/// Where the target is, and who to be there.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// The relay's client listener.
    #[arg(long, default_value = "ws://127.0.0.1:3000/ws")]
    pub url: String,
    /// The relay's ingest listener.
    #[arg(long, default_value = "http://127.0.0.1:3001")]
    pub ingest_url: String,
    /// The tenant.
    #[arg(long, default_value = "bench", value_parser = TenantName::parse)]
    pub tenant: TenantName,
    /// Spread the topics over so many tenants, NAME-0, NAME-1 and so on; each has at least one.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub tenants: NonZeroUsize,
    /// How the tokens of clients are signed.
    #[command(flatten)]
    pub signing: Signing,
    /// The file with the ingest key.
    /// Else the environment variable SIDEWIRE_INGEST_KEY is used, else no key.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub key_file: Option<PathBuf>,
    /// The relay's process, on this machine, to say what it uses.
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// How many clients connect at the same time.
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub concurrency: NonZeroUsize,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// Speak to the floor of benches/floor instead of a relay.
    #[arg(long, value_enum, hide = true)]
    pub floor: Option<Framing>,
}

/// When is measured.
#[derive(Debug, clap::Args)]
pub struct WindowArgs {
    /// How long to measure.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How long to run before.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
}

/// The connections and their topics.
#[derive(Debug, clap::Args)]
pub struct FanoutArgs {
    /// How many clients.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// How many topics; each client is subscribed to one.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub topics: NonZeroUsize,
}

/// How large events are.
#[derive(Debug, clap::Args)]
pub struct PayloadArgs {
    /// The bytes of an event as it is posted.
    #[arg(long, value_name = "BYTES", default_value = "200")]
    pub payload: usize,
}

/// What full load is.
#[derive(Debug, clap::Args)]
pub struct FullLoadArgs {
    /// At most so many events that some client has not received yet.
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub outstanding: NonZeroUsize,
}

/// The flags of `latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench latency --connections 1000 --rate 50 --secret-file jwt.secret --key-file ingest.key")]
pub struct LatencyArgs {
    /// Events a second.
    #[arg(long, default_value = "50", value_parser = rate)]
    pub rate: f64,
    /// The connections.
    #[command(flatten)]
    pub fanout: FanoutArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// When.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where.
    #[command(flatten)]
    pub common: Common,
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
    /// When.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where.
    #[command(flatten)]
    pub common: Common,
}

/// The flags of `selective`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench selective --connections 5000 --secret-file jwt.secret --key-file ingest.key")]
pub struct SelectiveArgs {
    /// How many clients, and topics.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// The load.
    #[command(flatten)]
    pub load: FullLoadArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// When.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where.
    #[command(flatten)]
    pub common: Common,
}

/// The flags of `idle`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench idle --connections 18000 --secret-file jwt.secret --server-pid 4242")]
pub struct IdleArgs {
    /// How many clients; each is subscribed to a topic of its own.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// How long to leave them alone before the memory is looked at.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub settle: Duration,
    /// Where.
    #[command(flatten)]
    pub common: Common,
}

/// The flags of `connect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench connect --connections 1000 --concurrency 64 --secret-file jwt.secret

Opens that many, closes them, and begins again until the time is over. Only the opening counts,
from the first packet to the last confirmation; not the closing, nor that it is then waited until
the server is at rest.")]
pub struct ConnectArgs {
    /// How many clients before they are closed again.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub connections: NonZeroUsize,
    /// When.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where.
    #[command(flatten)]
    pub common: Common,
}

/// The flags of `ingest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench ingest --publishers 64 --batch 100 --key-file ingest.key")]
pub struct IngestArgs {
    /// How many connections post, each one call after the other.
    #[arg(long, value_name = "COUNT", default_value = "64")]
    pub publishers: NonZeroUsize,
    /// How many events a call has.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    pub batch: NonZeroUsize,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// When.
    #[command(flatten)]
    pub window: WindowArgs,
    /// Where.
    #[command(flatten)]
    pub common: Common,
}

/// The flags of `growth`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidewire bench growth --few 1000 --many 18000 --secret-file jwt.secret --key-file ingest.key --server-pid 4242

100 clients share the topic that the events are for; each other one has a topic of its own. The
blocks alternate, in one process of the server: few, many, many, few, few, and so on.")]
pub struct GrowthArgs {
    /// How many clients are connected in one half of the blocks.
    #[arg(long, value_name = "COUNT", default_value = "1000")]
    pub few: NonZeroUsize,
    /// How many in the other half.
    #[arg(long, value_name = "COUNT", default_value = "18000")]
    pub many: NonZeroUsize,
    /// How many blocks each half has.
    #[arg(long, value_name = "COUNT", default_value = "15")]
    pub blocks: NonZeroUsize,
    /// How long to measure in each block.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How long to run before each.
    #[arg(long, default_value = "200ms", value_parser = humantime::parse_duration)]
    pub warmup: Duration,
    /// The load.
    #[command(flatten)]
    pub load: FullLoadArgs,
    /// The events.
    #[command(flatten)]
    pub payload: PayloadArgs,
    /// Where.
    #[command(flatten)]
    pub common: Common,
}

/// Measures, and prints what was found.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    ops::init_logging(&config::Log::default()).map_err(Failure::new)?;
    let schema = Schema::bundled().map_err(Failure::new)?;
    let (plan, json) = args.scenario.plan()?;
    for warning in bench::warnings(&plan) {
        tracing::warn!("{warning}");
    }
    let report = bench::run(plan, &schema, &mut |_| ()).map_err(failure)?;
    let text = if json {
        serde_json::to_string(&report).map_err(Failure::new)?
    } else {
        table(&report)
    };
    write_result(&mut io::stdout(), &text)?;
    report
        .complaint()
        .map_or(Ok(()), |it| Err(Failure::new(it)))
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Refused { status: 401, .. } => Failure::unauthorized(format!(
            "{error}. Give the ingest key with --key-file or in {KEY_VARIABLE}"
        )),
        error => Failure::new(error),
    }
}

impl Command {
    /// The plan, and whether the result is to be JSON.
    fn plan(self) -> Result<(Plan, bool), Failure> {
        match self {
            Self::Latency(args) => {
                let scenario = Scenario::Latency {
                    fanout: args.fanout.fanout(),
                    rate: args.rate,
                    window: args.window.window(),
                };
                args.common.plan(scenario, args.payload.payload)
            }
            Self::Throughput(args) => {
                let scenario = Scenario::Throughput {
                    fanout: args.fanout.fanout(),
                    outstanding: args.load.outstanding.get(),
                    window: args.window.window(),
                };
                args.common.plan(scenario, args.payload.payload)
            }
            Self::Selective(args) => {
                let scenario = Scenario::Selective {
                    connections: args.connections.get(),
                    outstanding: args.load.outstanding.get(),
                    window: args.window.window(),
                };
                args.common.plan(scenario, args.payload.payload)
            }
            Self::Idle(args) => {
                let scenario = Scenario::Idle {
                    connections: args.connections.get(),
                    settle: args.settle,
                };
                args.common.plan(scenario, 0)
            }
            Self::Connect(args) => {
                let scenario = Scenario::Connect {
                    connections: args.connections.get(),
                    window: args.window.window(),
                };
                args.common.plan(scenario, 0)
            }
            Self::Ingest(args) => {
                let scenario = Scenario::Ingest {
                    publishers: args.publishers.get(),
                    batch: args.batch.get(),
                    window: args.window.window(),
                };
                args.common.plan(scenario, args.payload.payload)
            }
            Self::Growth(args) => {
                let scenario = Scenario::Growth {
                    few: args.few.get(),
                    many: args.many.get(),
                    blocks: args.blocks.get(),
                    outstanding: args.load.outstanding.get(),
                    window: Window {
                        warmup: args.warmup,
                        duration: args.duration,
                    },
                };
                args.common.plan(scenario, args.payload.payload)
            }
        }
    }
}

impl FanoutArgs {
    fn fanout(&self) -> Fanout {
        Fanout {
            connections: self.connections.get(),
            topics: self.topics.get(),
        }
    }
}

impl WindowArgs {
    fn window(&self) -> Window {
        Window {
            warmup: self.warmup,
            duration: self.duration,
        }
    }
}

impl Common {
    fn plan(self, scenario: Scenario, payload_bytes: usize) -> Result<(Plan, bool), Failure> {
        let speech = match self.floor {
            Some(framing) => Speech::Floor(framing),
            None => Speech::Relay(Box::new(Relay {
                tenant: self.tenant,
                tenants: self.tenants.get(),
                signing_key: self.signing.key()?,
                rules: self.signing.rules(),
                ingest_key: credential(self.key_file.as_deref(), env::var(KEY_VARIABLE).ok())?,
            })),
        };
        let plan = Plan {
            target: Target {
                clients: Place::of(&self.url, "ws").map_err(Failure::new)?,
                ingest: Place::of(&self.ingest_url, "http").map_err(Failure::new)?,
                speech,
            },
            scenario,
            payload_bytes,
            concurrency: self.concurrency.get(),
            server_pid: self.server_pid,
        };
        Ok((plan, self.json))
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if rate.is_finite() && rate > 0.0 {
        Ok(rate)
    } else {
        Err("is no rate".to_owned())
    }
}

/// The report for people: what is known of it.
fn table(report: &Report) -> String {
    let mut table = Table::default();
    let each = |value: f64, unit: &str| format!("{value:.2} {unit}");
    table.row(
        "scenario",
        format!("{}, {}", report.scenario, report.target),
    );
    if report.connections > 0 {
        let topics = format!("{} on {} topics", report.connections, report.topics);
        table.row("connections", topics);
        let connects = format!(
            "{} at {:.0} a second",
            report.connects, report.connects_per_s
        );
        table.row("connects", connects);
    }
    if report.events > 0 {
        let events = format!(
            "{} of {} bytes in {:.2} s: {:.0} a second",
            report.events, report.payload_bytes, report.seconds, report.events_per_s
        );
        table.row("events", events);
    }
    if report.deliveries > 0 {
        let deliveries = format!(
            "{}: {:.0} a second",
            report.deliveries, report.deliveries_per_s
        );
        table.row("deliveries", deliveries);
    }
    table.latency("POST to frame", report.latency_us);
    table.latency("POST to its last frame", report.last_latency_us);
    table.latency("POST to answer", report.answer_latency_us);
    if let Some(server) = &report.server {
        table.server(server, &each);
    }
    if let Some(growth) = &report.growth {
        table.row(
            "an event, few connected",
            each(growth.few_cpu_us_per_event, "µs"),
        );
        table.row(
            "an event, many connected",
            each(growth.many_cpu_us_per_event, "µs"),
        );
        table.row("many by few", format!("{:.3}", growth.ratio));
    }
    table.generator(report.generator.cpu_share);
    let verdict = report.complaint();
    let well = "nothing lost, doubled, out of order or refused";
    table.row("verdict", verdict.unwrap_or_else(|| well.to_owned()));
    table.0
}

/// Lines of a name and a value.
#[derive(Default)]
struct Table(String);

impl Table {
    fn row(&mut self, name: &str, value: impl fmt::Display) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(&format!("{name:<28}{value}"));
    }

    fn latency(&mut self, name: &str, latency: Option<Percentiles>) {
        if let Some(Percentiles {
            p50,
            p99,
            p999,
            max,
        }) = latency
        {
            let value =
                format!("p50 {p50:.0} µs, p99 {p99:.0} µs, p99.9 {p999:.0} µs, max {max:.0} µs");
            self.row(name, value);
        }
    }

    fn server(&mut self, server: &ServerUse, each: &dyn Fn(f64, &str) -> String) {
        let costs = [
            ("server, a delivery", server.cpu_us_per_delivery),
            ("server, an event", server.cpu_us_per_event),
            ("server, a connect", server.cpu_us_per_connect),
        ];
        for (name, cost) in costs {
            if let Some(cost) = cost {
                self.row(name, each(cost, "µs of CPU"));
            }
        }
        if let Some(bytes) = server.memory_bytes_per_connection {
            self.row("server, a connection", each(bytes / 1024.0, "KiB"));
        }
    }

    fn generator(&mut self, share: f64) {
        let mark = if share > GENERATOR_SHARE_MAX {
            ": it was the limit, not the target"
        } else {
            ""
        };
        self.row(
            "generator",
            format!("{:.0} % of a core{mark}", share * 100.0),
        );
    }
}
