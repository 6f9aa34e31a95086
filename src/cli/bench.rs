//! `sidewire bench`: runs the load generator, shows its progress and prints its report.

mod flags;
mod table;

use std::io;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Failure, schema_args, write_result};
use crate::{
    bench::{self, BenchError, Progress},
    config, ops,
};

pub use self::flags::Args;
use self::table::table;

/// The environment variable that holds the ingest key when no file is named.
const KEY_VARIABLE: &str = "SIDEWIRE_INGEST_KEY";

/// Runs the benchmark and prints the report.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    ops::init_logging(&config::Log::default()).map_err(Failure::new)?;
    let source = args.scenario.common().schema.source()?;
    let schema = schema_args::load(&source)?;
    let (plan, json) = args.scenario.plan()?;
    for warning in bench::warnings(&plan) {
        tracing::warn!("{warning}");
    }
    let mut bar = Bar::new(json);
    let report = bench::run(plan, &schema, &mut |progress| bar.show(progress));
    bar.clear();
    let report = report.map_err(failure)?;
    let text = if json {
        serde_json::to_string(&report).map_err(Failure::new)?
    } else {
        table(&report)
    };
    write_result(&mut io::stdout(), &text)?;
    let complaint = report.complaint();
    complaint.map_or(Ok(()), |it| Err(Failure::new(it)))
}

fn failure(error: BenchError) -> Failure {
    match error {
        BenchError::Refused { status: 401, .. } => Failure::unauthorized(format!(
            "{error}. Pass the ingest key with --key-file or in {KEY_VARIABLE}"
        )),
        BenchError::Unauthorized(_) => Failure::unauthorized(format!(
            "{error}. Pass the relay's signing secret with --secret-file"
        )),
        error => Failure::new(error),
    }
}

/// The progress bar, on standard error if that is a terminal.
struct Bar {
    bar: ProgressBar,
    phase: &'static str,
}

impl Bar {
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

    fn show(&mut self, Progress { phase, done, total }: Progress) {
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
        args: Args,
    }

    fn parse(flags: &str) -> Result<Args, clap::Error> {
        let words = std::iter::once("bench").chain(flags.split(' '));
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn a_scenario_has_its_own_flags_only() {
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
    fn the_flags_make_a_plan() {
        let args = parse("latency --rate 20 --url ws://127.0.0.1:9/ws/ --floor raw").unwrap();
        let (plan, json) = args.scenario.plan().unwrap();
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
            assert!(parse(flags).unwrap().scenario.plan().is_err(), "{flags}");
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
