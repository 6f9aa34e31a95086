//! `sidewire bench`: runs the load generator, shows its progress and prints its report.

mod flags;
mod table;

use std::io;

use indicatif::{ProgressBar, ProgressStyle};
use sidewire_bench::{BenchError, BenchProgress, RelayLimits};

use super::{CommandFailure, schema_args, write_result};
use crate::{
    config::{Config, LogSection},
    telemetry,
};

pub use self::flags::BenchArgs;
use self::table::report_table;

/// The environment variable that holds the ingest key when no file is named.
const KEY_VARIABLE: &str = "SIDEWIRE_INGEST_KEY";

/// Runs the benchmark and prints the report.
pub(super) fn run(args: BenchArgs) -> Result<(), CommandFailure> {
    telemetry::init_logging(&LogSection::default()).map_err(CommandFailure::new)?;
    let source = args.scenario.common_args().schema.source()?;
    let schema = schema_args::load_schema(&source)?;
    let (plan, json) = args.scenario.into_plan()?;
    let limits = RelayLimits::from(&Config::default());
    for warning in sidewire_bench::warnings(&plan, &limits) {
        tracing::warn!("{warning}");
    }
    let mut bar = BenchProgressBar::new(json);
    let report = sidewire_bench::run(plan, &schema, &mut |progress| bar.show_progress(progress));
    bar.clear();
    let report = report.map_err(bench_failure)?;
    let text = if json {
        serde_json::to_string(&report).map_err(CommandFailure::new)?
    } else {
        report_table(&report)
    };
    write_result(&mut io::stdout(), &text)?;
    let complaint = report.failure_summary();
    complaint.map_or(Ok(()), |it| Err(CommandFailure::new(it)))
}

impl From<&Config> for RelayLimits {
    fn from(config: &Config) -> Self {
        Self {
            body_max: config.ingest.body_max,
            batch_body_max: config.ingest.batch_body_max,
            batch_events_max: config.ingest.batch_events_max,
            outbox_frames: config.limits.outbox_frames,
            outbox_bytes: config.limits.outbox_bytes,
            tenants: config.limits.tenants,
        }
    }
}

fn bench_failure(error: BenchError) -> CommandFailure {
    match error {
        BenchError::Refused { status: 401, .. } => CommandFailure::unauthorized(format!(
            "{error}. Pass the ingest key with --key-file or in {KEY_VARIABLE}"
        )),
        BenchError::Unauthorized(_) => CommandFailure::unauthorized(format!(
            "{error}. Pass the relay's signing secret with --secret-file"
        )),
        error => CommandFailure::new(error),
    }
}

/// The progress bar, on standard error if that is a terminal.
struct BenchProgressBar {
    bar: ProgressBar,
    phase: &'static str,
}

impl BenchProgressBar {
    fn new(is_hidden: bool) -> Self {
        let bar = if is_hidden {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(0)
        };
        let style = ProgressStyle::with_template("{msg:12} {wide_bar} {percent:>3} % {elapsed}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        Self {
            bar: bar.with_style(style),
            phase: "",
        }
    }

    fn show_progress(&mut self, BenchProgress { phase, done, total }: BenchProgress) {
        self.bar.update(|state| {
            state.set_len(total);
            state.set_pos(done);
        });
        if phase != self.phase {
            self.phase = phase;
            self.bar.reset_elapsed();
            self.bar.set_message(phase);
        }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn parse(flags: &str) -> Result<BenchArgs, clap::Error> {
        let words = std::iter::once("bench").chain(flags.split(' '));
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn a_scenario_accepts_only_its_own_flags() {
        for flags in [
            "latency --rate 1000 --topics 3",
            "throughput --outstanding 8 --tenants 4",
            "selective --connections 5000",
            "idle --settle 1s",
            "connect --concurrency 8",
            "ingest --publishers 3 --batch 7 --payload 500",
            "growth --few 200 --many 400 --blocks 3",
        ] {
            assert!(parse(flags).is_ok(), "{flags}");
        }
        for flags in [
            "throughput --rate 5",
            "selective --topics 5",
            "idle --payload 5",
            "latency --rate 0",
            "latency --rate inf",
            "latency --connections 0",
            "ingest --batch 0",
            "soak",
        ] {
            assert!(parse(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn the_flags_are_parsed_into_a_plan() {
        let args = parse("latency --rate 20 --url ws://127.0.0.1:9/ws/ --floor raw").unwrap();
        let (plan, json) = args.scenario.into_plan().unwrap();
        assert!(!json);
        let (fanout, publishers) = (plan.scenario.fanout(), plan.scenario.publishers());
        assert_eq!(
            (fanout.connections, fanout.topics, publishers),
            (1000, 1, 1)
        );
        assert_eq!(plan.payload_bytes, 200);
        for flags in [
            "growth --few 5 --many 5",
            "idle --url http://127.0.0.1/ws",
            "idle --url ws://",
            "idle --secret-file /nowhere",
        ] {
            assert!(
                parse(flags).unwrap().scenario.into_plan().is_err(),
                "{flags}"
            );
        }
    }

    #[test]
    fn every_scenario_has_an_example_that_parses() {
        use clap::CommandFactory;
        let mut bench = Command::command();
        bench.build();
        let scenarios: Vec<_> = bench.get_subcommands_mut().collect();
        assert_eq!(scenarios.len(), 7 + 1);
        for scenario in scenarios {
            if scenario.get_name() == "help" {
                continue;
            }
            let help = scenario.render_long_help().to_string();
            let examples: Vec<_> = help
                .lines()
                .filter_map(|line| line.strip_prefix("  sidewire bench "))
                .collect();
            assert!(!examples.is_empty(), "{help}");
            for example in examples {
                assert!(parse(example).is_ok(), "{example}");
            }
        }
    }
}
