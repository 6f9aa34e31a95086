//! `sidewire tail`: follows topics as a client does and prints each event as
//! JSON. What the events mean is told to it by a function that decodes them.

use std::{
    env, fmt,
    future::Future,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use clap::ValueEnum;
use serde_json::Value;

use super::{Failure, client_tls, credential, runtime::interrupted, sample, write_result};
use crate::{
    client::{Client, ClientError, ClientEvent, ClientOptions, Event},
    protocol::{Epoch, ErrorCode, Position, Topic, wire},
    random::Random,
    schema::Schema,
};

/// Where the token is looked for when no file is named. Not on the command line,
/// where every user of the machine can read it.
const TOKEN_VARIABLE: &str = "SIDEWIRE_TOKEN";

/// What to follow, where and how.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// The relay's client listener; wss:// for TLS.
    #[arg(long, default_value = "ws://127.0.0.1:3000/ws")]
    pub url: String,
    /// The file with the token.
    /// Else the environment variable SIDEWIRE_TOKEN is used, else no token.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub token_file: Option<PathBuf>,
    /// The file with the certificates that the relay's is checked against, as PEM.
    /// Else those that the system trusts; SSL_CERT_FILE names others.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub ca_file: Option<PathBuf>,
    /// Who to be where the relay asks for no token.
    #[arg(long)]
    pub user: Option<String>,
    /// Begin after this position, with what was published since.
    /// It stands in every event, as `position`.
    #[arg(long, value_name = "EPOCH:OFFSET", value_parser = position, verbatim_doc_comment)]
    pub since: Option<Position>,
    /// How to print an event: in one line, or indented.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// The topics to follow.
    /// Without any: what concerns the user and the whole tenant, which always comes.
    #[arg(value_name = "KIND:ID", value_parser = Topic::parse, verbatim_doc_comment)]
    pub topics: Vec<Topic>,
}

fn position(text: &str) -> Result<Position, String> {
    let (epoch, offset) = text
        .split_once(':')
        .ok_or("has no colon between epoch and offset")?;
    let epoch: Epoch = epoch
        .parse()
        .map_err(|error| format!("{epoch:?} {error}"))?;
    let offset = offset
        .parse()
        .map_err(|error| format!("{offset:?} is no offset: {error}"))?;
    Ok(Position { epoch, offset })
}

/// How an event is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// In one line.
    Json,
    /// Indented.
    Pretty,
}

/// Follows until ctrl-c, and prints with the bundled schema.
pub(super) async fn main(args: Args) -> Result<(), Failure> {
    let schema = Schema::bundled().map_err(Failure::new)?;
    let decode = |envelope: &[u8]| schema.envelope_to_json(envelope);
    run(args, decode, &mut io::stdout(), interrupted()?).await
}

/// Follows until `stop` is ready or nobody reads `out` any more.
///
/// # Errors
///
/// When the relay will not have this client, or `out` cannot be written to.
pub async fn run<D, E>(
    args: Args,
    decode: D,
    out: &mut impl Write,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure>
where
    D: Fn(&[u8]) -> Result<Value, E>,
    E: fmt::Display,
{
    let mut client = client(&args)?;
    tokio::pin!(stop);
    loop {
        let event = tokio::select! {
            biased;
            () = &mut stop => break,
            event = client.next() => event.map_err(failure)?,
        };
        if let Some(event) = report(event)? {
            match decode(&event.envelope) {
                Ok(json) => {
                    if !write_result(out, &render(&json, args.format))? {
                        break;
                    }
                }
                Err(error) => tracing::error!(
                    message_id = event.message_id,
                    "an event that the schema cannot decode: {error}"
                ),
            }
        }
    }
    client.close().await;
    Ok(())
}

fn client(args: &Args) -> Result<Client, Failure> {
    let random = Random::from_system().map_err(Failure::new)?;
    let mut options = ClientOptions::new(&args.url, Arc::new(random));
    options.token = credential(args.token_file.as_deref(), env::var(TOKEN_VARIABLE).ok())?;
    options.user_id.clone_from(&args.user);
    options.tls = client_tls(&args.url, args.ca_file.as_deref())?;
    let mut client = Client::new(options);
    if let Some(since) = args.since {
        client.start_from(since.into());
    }
    client.subscribe(args.topics.iter().map(Topic::as_str));
    Ok(client)
}

/// Logs what happened; an event is for the caller.
fn report(event: ClientEvent) -> Result<Option<Event>, Failure> {
    match event {
        ClientEvent::Event(event) => return Ok(Some(event)),
        ClientEvent::Connected => tracing::info!("connected"),
        ClientEvent::Subscribed(confirmed) => {
            tracing::info!(topics = confirmed.topics.len(), "following");
        }
        ClientEvent::Unsubscribed(_) => {}
        ClientEvent::Gap { since, topics, .. } => report_gap(&since, &topics),
        ClientEvent::Disconnected { reason, retry_in } => {
            let retry_ms = u64::try_from(retry_in.as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(retry_ms, "{reason}");
        }
        // The relay says so before it closes, which says what to do.
        ClientEvent::Refused(error)
            if error.error_code == ErrorCode::AuthenticationFailed.as_str() =>
        {
            tracing::warn!("{}", error.error_message);
        }
        ClientEvent::Refused(error) if error.retry_after_ms.is_some() => {
            tracing::warn!(retry_ms = error.retry_after_ms, "{}", error.error_message);
        }
        ClientEvent::Refused(error) => {
            return Err(Failure::new(format!(
                "the relay refused to subscribe: {}: {}",
                error.error_code, error.error_message
            )));
        }
    }
    Ok(None)
}

fn report_gap(since: &wire::Position, topics: &[String]) {
    let wire::Position { epoch, offset } = since;
    tracing::warn!(
        since = format!("{epoch}:{offset}"),
        topics = topics.join(" "),
        "events are missing here: the relay no longer has all that came since; fetch the state from the backend"
    );
}

fn render(json: &Value, format: Format) -> String {
    match format {
        Format::Json => json.to_string(),
        Format::Pretty => format!("{json:#}"),
    }
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Unauthorized(_) => Failure::unauthorized(format!(
            "{error}, from `sidewire token` or whoever issues yours, in --token-file or in {TOKEN_VARIABLE}"
        )),
        error => Failure::new(error),
    }
}

fn help() -> String {
    let topic = sample().sample_topic;
    format!(
        "Examples:
  sidewire tail --token-file token.jwt {topic}
  sidewire tail --url ws://relay.internal:3000/ws --format pretty {topic}
  sidewire tail --url wss://relay.example.org/ws --ca-file ca.pem {topic}
  sidewire tail --since 7c3e09d5635dcea77ac98e629dfe922e:42 {topic}

Events go to standard output, all else to standard error.
A lost connection is opened again, and what was published meanwhile follows. Where the relay no
longer has all of it, standard error says so, and only what comes from then on follows; so with
--since.
Exit status: 0 after ctrl-c or when nobody reads standard output any more, 3 if the token is not
accepted or has expired, 1 if something else failed."
    )
}

#[cfg(test)]
#[path = "tail_tests.rs"]
mod tests;
