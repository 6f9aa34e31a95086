//! `sidewire route`: shows which topics an event relates to, and why, and whether a client
//! would receive it. It calls the same functions as ingest and needs no relay.

use std::io;

use clap::ValueEnum;
use sidewire_protocol::{
    Topic, UserName,
    schema::{BundledSchema, Schema},
};

use super::{
    CommandFailure,
    event_args::EventArgs,
    sample_bundled,
    schema_args::{self, SchemaOrConfigArgs},
    write_result,
};
use crate::{
    auth::Grant,
    config::Config,
    ingest::{self, DescribedClient, DryRunRequest, RefusedEvent, RouteReport},
};

/// Exit status: the relay would refuse the event.
const REFUSED: u8 = 4;

/// Exit status: the client would not receive the event.
const NOT_RECEIVED: u8 = 5;

/// The flags of `sidewire route`: the event, and the client that might receive it.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct RouteArgs {
    /// The schema.
    #[command(flatten)]
    pub schema: SchemaOrConfigArgs,
    /// A topic in addition to those that the event itself names; repeatable.
    #[arg(long = "topic", value_name = "KIND:ID")]
    pub topics: Vec<String>,
    /// A topic that the client subscribes to; repeatable. All are sent in one Subscribe.
    #[arg(long, value_name = "KIND:ID", value_parser = Topic::parse)]
    pub subscribe: Vec<Topic>,
    /// A topic that the client's token grants, or `kind:*` for all of a kind; repeatable.
    /// Without any, the token grants everything.
    #[arg(long, value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub grant: Vec<Topic>,
    /// The user of the client.
    #[arg(long, value_parser = UserName::parse)]
    pub user: Option<UserName>,
    /// The output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// The event.
    #[command(flatten)]
    pub event: EventArgs,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for humans.
    Text,
    /// JSON for programs: one object in one line.
    Json,
}

/// Routes the event and prints the result.
pub(super) fn run(args: RouteArgs) -> Result<(), CommandFailure> {
    let body = args.event.read_event(io::stdin())?;
    let config = args.schema.load_config()?;
    let schema = schema_args::load_schema(&config.schema.source())?;
    let posted = DryRunRequest {
        body: &body.bytes,
        is_json: body.is_json,
        topics: &args.topics,
    };
    let client = described_client(args.subscribe, args.grant, args.user);
    let (report, failure) = match route_report(&schema, &config, posted, client) {
        Ok(report) => {
            let failure = report.is_missed().then(|| CommandFailure {
                message: "the client would not receive the event".to_owned(),
                exit_code: NOT_RECEIVED,
            });
            (format_report(&report, args.format)?, failure)
        }
        Err(refused) => {
            let failure = CommandFailure {
                message: format!("the relay would refuse the event: {}", refused.message()),
                exit_code: REFUSED,
            };
            let report = match args.format {
                Format::Text => None,
                Format::Json => format_report(&refused, args.format)?,
            };
            (report, Some(failure))
        }
    };
    if let Some(report) = report {
        write_result(&mut io::stdout(), &report)?;
    }
    failure.map_or(Ok(()), Err)
}

fn route_report(
    schema: &Schema,
    config: &Config,
    posted: DryRunRequest<'_>,
    client: Option<DescribedClient>,
) -> Result<RouteReport, RefusedEvent> {
    let taken = ingest::dry_run(schema, &config.ingest, &config.limits, posted)?;
    RouteReport::for_event(schema, &taken, ("--topic", posted.topics), client.as_ref())
}

fn format_report(
    report: &(impl serde::Serialize + ToString),
    format: Format,
) -> Result<Option<String>, CommandFailure> {
    match format {
        Format::Text => Ok(Some(report.to_string().trim_end().to_owned())),
        Format::Json => serde_json::to_string(report)
            .map(Some)
            .map_err(CommandFailure::new),
    }
}

/// Returns the client that the flags describe, if any.
fn described_client(
    subscribe: Vec<Topic>,
    grant: Vec<Topic>,
    user: Option<UserName>,
) -> Option<DescribedClient> {
    let is_described = !subscribe.is_empty() || !grant.is_empty() || user.is_some();
    is_described.then(|| DescribedClient {
        subscribe,
        grant: if grant.is_empty() {
            Grant::Everything
        } else {
            Grant::from_topics(grant)
        },
        user,
    })
}

fn help() -> String {
    let BundledSchema {
        sample_topic: topic,
        sample_event: event,
        ..
    } = sample_bundled();
    format!(
        "Examples:
  sidewire route '{event}'
  sidewire route --subscribe {topic} --user bob '{event}'
  sidewire route --subscribe {topic} --grant {topic} --file event.json
  sidewire route --schema chat.proto --envelope chat.v1.Envelope --file event.bin
  sidewire route --bundled generic --topic order:7 '{{\"event\":{{\"type\":\"order.shipped\"}}}}'

With --subscribe, --grant or --user it also says whether such a client would receive the event.
docs/cli.md describes the JSON.
Exit status: 0 if the relay would accept the event and the client, if one is described, would
receive it; {REFUSED} if the relay would refuse the event; {NOT_RECEIVED} if the client would not receive it; 1 if
anything else failed."
    )
}

#[cfg(test)]
mod tests;
