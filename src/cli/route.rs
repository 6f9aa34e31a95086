//! `sidewire route`: which topics an event would reach, and why; and whether a client
//! would receive it. Decides nothing itself: it asks the functions of ingest and of the
//! schema, and needs no relay.

mod client;
mod report;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use self::{
    client::Client,
    report::{Refused, Report},
};
use super::{Failure, sample, schema_args, schema_args::SchemaOrConfigArgs, write_result};
use crate::{
    auth::Grant,
    config::Config,
    ingest::{self, Posted},
    protocol::{Topic, UserName},
    schema::{Bundled, Schema},
};

/// Stands for standard input.
const STDIN: &str = "-";

/// Exit status: the relay would refuse the event.
const REFUSED: u8 = 4;

/// Exit status: the client would not receive the event.
const NOT_RECEIVED: u8 = 5;

/// The event, and who might receive it.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// Which schema.
    #[command(flatten)]
    pub schema: SchemaOrConfigArgs,
    /// A topic given with the call, as `publish --topic` does; repeatable.
    #[arg(long = "topic", value_name = "KIND:ID")]
    pub topics: Vec<String>,
    /// A topic that a client subscribes to; repeatable. All are in one Subscribe.
    #[arg(long, value_name = "KIND:ID", value_parser = Topic::parse)]
    pub subscribe: Vec<Topic>,
    /// A topic that the client's token grants, or `kind:*` for all of a kind; repeatable.
    /// Without any, the token grants everything.
    #[arg(long, value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub grant: Vec<Topic>,
    /// Who the client is.
    #[arg(long, value_parser = UserName::parse)]
    pub user: Option<UserName>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The event is binary, also where it looks like JSON.
    #[arg(long)]
    pub binary: bool,
    /// Read the event from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "event")]
    pub file: Option<PathBuf>,
    /// The event as proto3 JSON, or - to read it from standard input.
    #[arg(required_unless_present = "file")]
    pub event: Option<String>,
}

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs: one JSON object, in one line.
    Json,
}

/// Routes the event, and prints the result.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let body = body(args.event.as_deref(), args.file.as_deref(), io::stdin())?;
    let schema = schema_args::load(&args.schema.source()?)?;
    let config = args.schema.config()?;
    let is_json = !args.binary && (args.event.as_deref().is_some_and(is_text) || looks_json(&body));
    let posted = Posted {
        body: &body,
        is_json,
        topics: &args.topics,
    };
    let client = client(args.subscribe, args.grant, args.user);
    let (report, failure) = match report(&schema, &config, posted, client) {
        Ok(report) => {
            let failure = report.is_missed().then(|| Failure {
                message: "the client would not receive the event".to_owned(),
                exit_code: NOT_RECEIVED,
            });
            (print(&report, args.format)?, failure)
        }
        Err(refused) => {
            let failure = Failure {
                message: format!("the relay would refuse the event: {}", refused.message()),
                exit_code: REFUSED,
            };
            let report = match args.format {
                Format::Text => None,
                Format::Json => print(&refused, args.format)?,
            };
            (report, Some(failure))
        }
    };
    if let Some(report) = report {
        write_result(&mut io::stdout(), &report)?;
    }
    failure.map_or(Ok(()), Err)
}

fn report(
    schema: &Schema,
    config: &Config,
    posted: Posted<'_>,
    client: Option<Client>,
) -> Result<Report, Refused> {
    let taken = ingest::dry_run(schema, &config.ingest, &config.limits, posted)?;
    Report::of(schema, &taken, posted.topics, client.as_ref())
}

fn print(
    report: &(impl serde::Serialize + ToString),
    format: Format,
) -> Result<Option<String>, Failure> {
    match format {
        Format::Text => Ok(Some(report.to_string().trim_end().to_owned())),
        Format::Json => serde_json::to_string(report)
            .map(Some)
            .map_err(Failure::new),
    }
}

/// The client that the flags describe, if they describe one.
fn client(subscribe: Vec<Topic>, grant: Vec<Topic>, user: Option<UserName>) -> Option<Client> {
    let is_described = !subscribe.is_empty() || !grant.is_empty() || user.is_some();
    is_described.then(|| Client {
        subscribe,
        grant: if grant.is_empty() {
            Grant::Everything
        } else {
            Grant::listed(grant)
        },
        user,
    })
}

/// Whether an argument is the event itself.
fn is_text(argument: &str) -> bool {
    argument != STDIN
}

/// Whether a body is JSON. No envelope that the relay takes begins with `{`, but one can
/// begin with what is white space in JSON: then it has to end like JSON too.
fn looks_json(body: &[u8]) -> bool {
    let body = body.trim_ascii_end();
    let trimmed = body.trim_ascii_start();
    let is_object = trimmed.first() == Some(&b'{');
    is_object && (trimmed.len() == body.len() || trimmed.last() == Some(&b'}'))
}

fn body(
    event: Option<&str>,
    file: Option<&Path>,
    mut stdin: impl Read,
) -> Result<Vec<u8>, Failure> {
    match (event, file) {
        (Some(event), _) if event != STDIN => Ok(event.as_bytes().to_vec()),
        (None, Some(path)) if path != Path::new(STDIN) => fs::read(path)
            .map_err(|error| Failure::new(format!("cannot read {}: {error}", path.display()))),
        _ => {
            let mut body = Vec::new();
            stdin
                .read_to_end(&mut body)
                .map_err(|error| Failure::new(format!("cannot read standard input: {error}")))?;
            Ok(body)
        }
    }
}

fn help() -> String {
    let Bundled {
        sample_topic: topic,
        sample_event: event,
        ..
    } = sample();
    format!(
        "Examples:
  sidewire route '{event}'
  sidewire route --subscribe {topic} --user bob '{event}'
  sidewire route --subscribe {topic} --grant {topic} --file event.json
  sidewire route --schema chat.proto --envelope chat.v1.Envelope --file event.bin
  sidewire route --bundled generic --topic order:7 '{{\"event\":{{\"type\":\"order.shipped\"}}}}'

With --subscribe, --grant or --user it also says whether such a client would receive the event.
docs/cli.md describes the JSON.
Exit status: 0 if the relay would take the event and the client, if one is described, would
receive it, {REFUSED} if the relay would refuse it, {NOT_RECEIVED} if the client would not receive it, 1 if something
else failed."
    )
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
