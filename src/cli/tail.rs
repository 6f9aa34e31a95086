//! `sidewire tail`: follows topics as a client does and prints their events.

mod filter;
mod followers;
mod output;
mod presence;
mod token_file;

use std::{
    fmt,
    future::{Future, pending},
    io::{self, Write},
    num::NonZeroU64,
    path::PathBuf,
    time::Duration,
};

use tokio::time::{Instant, sleep};

pub use self::{
    filter::EventFilter,
    output::{EventReader, Format},
};

use sidewire_client::{ClientError, ClientEvent, ReceivedEvent};
use sidewire_protocol::{Epoch, ErrorCode, Position, Topic, wire};

use self::{
    followers::{Follower, Followers},
    output::{EventPrinter, PrintOutcome},
};
use super::{
    CommandFailure, TOKEN_VARIABLE, listener_urls,
    runtime::listen_for_interrupt,
    sample_bundled,
    schema_args::{self, SchemaOrConfigArgs},
};

/// Exit status: the time ended before the wanted number of events had been printed.
const TOO_FEW: u8 = 4;

/// The flags of `sidewire tail`.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct TailArgs {
    /// The URL of the relay's client listener; wss:// for TLS.
    /// Defaults to the listener in --config, or ws://127.0.0.1:3000/ws without --config.
    #[arg(long, verbatim_doc_comment)]
    pub url: Option<String>,
    /// The file with the token; repeatable, with one connection per token.
    /// Defaults to the environment variable SIDEWIRE_TOKEN, or no token if that is unset.
    #[arg(long = "token-file", value_name = "FILE", verbatim_doc_comment)]
    pub token_files: Vec<PathBuf>,
    /// The PEM file with the certificates to trust for the relay's certificate.
    /// Defaults to those that the system trusts; SSL_CERT_FILE replaces these.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub ca_file: Option<PathBuf>,
    /// The user to connect as, if the relay requires no token.
    #[arg(long)]
    pub user: Option<String>,
    /// Start after this position: events published since then come first.
    /// Every printed event has its position.
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position, verbatim_doc_comment)]
    pub since: Option<Position>,
    /// Print only events with this value in the field; repeatable, and all must match.
    /// Name fields as in the .proto or as in JSON, such as order.customer_id.
    #[arg(long = "where", value_name = "FIELD=VALUE", verbatim_doc_comment)]
    pub conditions: Vec<String>,
    /// Print only events with this payload; repeatable, to print several payloads.
    #[arg(long = "payload", value_name = "NAME")]
    pub payloads: Vec<String>,
    /// Print who is present on which topics, in addition to the message that tells it.
    #[arg(long)]
    pub presence: bool,
    /// Stop after printing this many events.
    #[arg(long, value_name = "COUNT")]
    pub count: Option<NonZeroU64>,
    /// Stop after this time.
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub lasting: Option<Duration>,
    /// The output format.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// The schema of the events.
    #[command(flatten)]
    pub schema: SchemaOrConfigArgs,
    /// The topics to follow.
    /// Events for the user and for the whole tenant come even without a topic.
    #[arg(value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub topics: Vec<Topic>,
}

fn position(text: &str) -> Result<Position, String> {
    let (epoch, offset) = text
        .split_once(':')
        .ok_or("there is no colon between epoch and offset")?;
    let epoch: Epoch = epoch
        .parse()
        .map_err(|error| format!("{epoch:?} {error}"))?;
    let offset = offset
        .parse()
        .map_err(|error| format!("{offset:?} is not an offset: {error}"))?;
    Ok(Position { epoch, offset })
}

/// Follows until ctrl-c and prints events with the schema of the flags.
pub(super) async fn main(args: TailArgs) -> Result<(), CommandFailure> {
    let config = args.schema.load_config()?;
    let url = match &args.url {
        Some(url) => url.clone(),
        None => listener_urls::client_url(&config)?,
    };
    let schema = schema_args::load_schema(&config.schema.source())?;
    let filter = EventFilter::from_flags(&schema, &args.payloads, &args.conditions)?;
    if args.presence && args.format == Format::Hex {
        let message = "--presence adds JSON to an event, and --format hex prints none";
        return Err(CommandFailure::new(message));
    }
    let reader = EventReader {
        filter,
        decode: |envelope: &[u8]| schema.envelope_to_json_text(envelope),
        presence: args.presence.then_some(&schema),
    };
    let mut stdout = io::stdout();
    run(args, &url, reader, &mut stdout, listen_for_interrupt()?).await
}

/// Follows the relay at `url` until `stop` is ready, `out` has no reader left, or the count or
/// time limit of the flags is reached.
///
/// # Errors
///
/// When the relay refuses this client, or `out` cannot be written to.
pub async fn run<D, E>(
    args: TailArgs,
    url: &str,
    reader: EventReader<'_, D>,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> Result<(), CommandFailure>
where
    D: Fn(&[u8]) -> Result<String, E>,
    E: fmt::Display,
{
    let mut followers = Followers::from_args(&args, url)?;
    let mut output = EventPrinter {
        format: args.format,
        reader,
        out,
    };
    let begun = Instant::now();
    let mut printed = 0;
    let outcome = follow_events(&args, &mut followers, &mut output, &mut printed, stop).await;
    log_summary(&followers, printed, begun.elapsed());
    followers.close().await;
    outcome
}

async fn follow_events<D, E, W>(
    args: &TailArgs,
    followers: &mut Followers,
    output: &mut EventPrinter<'_, D, W>,
    printed: &mut u64,
    stop: impl Future<Output = ()>,
) -> Result<(), CommandFailure>
where
    D: Fn(&[u8]) -> Result<String, E>,
    E: fmt::Display,
    W: Write,
{
    let over = async {
        match args.lasting {
            Some(lasting) => sleep(lasting).await,
            None => pending().await,
        }
    };
    tokio::pin!(stop, over);
    loop {
        let (index, event) = tokio::select! {
            biased;
            () = &mut stop => return Ok(()),
            () = &mut over => return time_over(args, *printed),
            next = followers.next_event() => next,
        };
        let Some(follower) = followers.get_mut(index) else {
            continue;
        };
        let user = follower.user.clone();
        let event = event.map_err(|error| tail_failure(user.as_deref(), error))?;
        let Some(event) = log_event(follower, event)? else {
            continue;
        };
        match output.print_event(user.as_deref(), &event)? {
            PrintOutcome::Yes => *printed = printed.saturating_add(1),
            PrintOutcome::No => {}
            PrintOutcome::Unread => return Ok(()),
        }
        if args.count.is_some_and(|count| *printed >= count.get()) {
            return Ok(());
        }
    }
}

/// Returns the outcome once the time limit is reached.
fn time_over(args: &TailArgs, printed: u64) -> Result<(), CommandFailure> {
    match args.count {
        Some(count) => Err(CommandFailure {
            message: format!("timed out after receiving {printed} of {count} events"),
            exit_code: TOO_FEW,
        }),
        None => Ok(()),
    }
}

/// Logs the received amounts, for each user and in total.
fn log_summary(followers: &Followers, printed: u64, lasted: Duration) {
    let per_s = |events: u64| {
        // The rates of one process are far too low to lose precision.
        let rate = events as f64 / lasted.as_secs_f64().max(f64::EPSILON);
        (rate * 10.0).round() / 10.0
    };
    let duration_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    let (mut events, mut bytes, mut gaps) = (0_u64, 0_u64, 0_u64);
    for follower in followers.iter() {
        if let Some(user) = &follower.user {
            tracing::info!(
                user,
                events = follower.events,
                bytes = follower.bytes,
                gaps = follower.gaps,
                events_per_s = per_s(follower.events),
                "summary of a user"
            );
        }
        events = events.saturating_add(follower.events);
        bytes = bytes.saturating_add(follower.bytes);
        gaps = gaps.saturating_add(follower.gaps);
    }
    tracing::info!(
        events,
        printed,
        bytes,
        gaps,
        duration_ms,
        events_per_s = per_s(events),
        "summary"
    );
}

/// Logs and counts a client event. Returns a received event for the caller to print.
fn log_event(
    follower: &mut Follower,
    event: ClientEvent,
) -> Result<Option<ReceivedEvent>, CommandFailure> {
    let user = follower.user.as_deref();
    match event {
        ClientEvent::Event(event) => {
            follower.events = follower.events.saturating_add(1);
            let bytes = u64::try_from(event.envelope.len()).unwrap_or(u64::MAX);
            follower.bytes = follower.bytes.saturating_add(bytes);
            return Ok(Some(event));
        }
        ClientEvent::Connected => tracing::info!(user, "connected"),
        ClientEvent::Subscribed(confirmed) => {
            tracing::info!(user, topics = confirmed.topics.len(), "following");
        }
        ClientEvent::Unsubscribed(_) => {}
        ClientEvent::Renewed { expires_at } => tracing::info!(user, expires_at, "token renewed"),
        ClientEvent::RenewalFailed { reason, retry_in } => {
            let retry_ms = retry_in.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
            tracing::warn!(user, retry_ms, "{reason}");
        }
        ClientEvent::Revoked { topics } => {
            let topics = topics.join(" ");
            tracing::warn!(user, topics, "the relay has ended these subscriptions");
        }
        ClientEvent::Gap { since, topics, .. } => {
            report_gap(user, &since, &topics);
            follower.gaps = follower.gaps.saturating_add(1);
        }
        ClientEvent::Disconnected { reason, retry_in } => {
            let retry_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(user, retry_ms, "{reason}");
        }
        // The relay closes the connection next, and the close code says what to do.
        ClientEvent::Refused(error)
            if error.error_code == ErrorCode::AuthenticationFailed.as_str() =>
        {
            tracing::warn!(user, "{}", error.error_message);
        }
        ClientEvent::Refused(error) if error.retry_after_ms.is_some() => {
            let retry_ms = error.retry_after_ms;
            tracing::warn!(user, retry_ms, "{}", error.error_message);
        }
        ClientEvent::Refused(error) => {
            return Err(CommandFailure::new(format!(
                "{}the relay refused the subscription: {}: {}",
                user_prefix(user),
                error.error_code,
                error.error_message
            )));
        }
    }
    Ok(None)
}

/// Returns the prefix of a message about one of several users.
fn user_prefix(user: Option<&str>) -> String {
    user.map(|user| format!("{user}: ")).unwrap_or_default()
}

fn report_gap(user: Option<&str>, since: &wire::Position, topics: &[String]) {
    let wire::Position { epoch, offset } = since;
    tracing::warn!(
        user,
        since = format!("{epoch}:{offset}"),
        topics = topics.join(" "),
        "events are missing here: the relay no longer has all events since this position; fetch the current state from the backend"
    );
}

fn tail_failure(user: Option<&str>, error: ClientError) -> CommandFailure {
    let of_user = user_prefix(user);
    match error {
        ClientError::Unauthorized(_) | ClientError::LoginRequired(_) => {
            CommandFailure::unauthorized(format!(
                "{of_user}{error}. `sidewire token` or your token issuer makes one; pass it with --token-file or in {TOKEN_VARIABLE}"
            ))
        }
        error => CommandFailure::new(format!("{of_user}{error}")),
    }
}

fn help() -> String {
    let topic = sample_bundled().sample_topic;
    format!(
        "Examples:
  sidewire tail --token-file token.jwt {topic}
  sidewire tail --url ws://relay.internal:3000/ws --format pretty {topic}
  sidewire tail --url wss://relay.example.org/ws --ca-file ca.pem {topic}
  sidewire tail --since 7c3e09d5635dcea77ac98e629dfe922e:42 {topic}
  sidewire tail --schema chat.proto --envelope chat.v1.Envelope --payload message_posted room:1
  sidewire tail --bundled generic --presence room:1
  sidewire tail --bundled generic --where event.type=order.shipped --where event.data.order=7 order:7
  sidewire tail --token-file ann.jwt --token-file bob.jwt --count 1 --for 10s {topic}

Events go to standard output; logs, and a summary at the end, go to standard error.
Events that clients send, presence included, are printed too; they have no position.
With several tokens a line is {{\"user\":…,\"event\":…}}, or in hex the user, a tab and the digits.
A token file is read again before its token expires, and a new token is used without reconnecting.
A lost connection is reopened, and events published in the meantime follow. If the relay no longer
has all of them, standard error says so, and only new events follow. The same holds for --since.
Exit status: 0 after ctrl-c, after --count events, after the --for time, or when the reader of
standard output is gone; 3 if a token is not accepted or has expired; {TOO_FEW} if the --for time passed
before --count events were printed; 1 if anything else failed."
    )
}

#[cfg(test)]
mod tests;
