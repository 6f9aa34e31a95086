//! `sidewire publish --as-client`: sends one event over a WebSocket, as a client does.

use std::{future::Future, io::Write, path::PathBuf, sync::Arc, time::Duration};

use prost::Message as _;
use serde_json::json;
use sidewire_client::{ClientOptions, OpenError, RelayConnection, RelayMessage, wire};
use sidewire_protocol::{
    ErrorCode, Topic,
    clock::Clock,
    envelope::OnlyMessageId,
    random::RandomSource,
    schema::{InspectLimits, Schema},
};
use tokio::time::timeout;

use crate::cli::{
    CommandFailure, TOKEN_VARIABLE, client_tls, credential_of, event_args::EventBody, write_result,
};

/// The time within which the relay must have answered everything.
const ANSWERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The code of a normal close.
const NORMAL_CLOSE: u16 = 1000;

/// The flags of the client that sends the event.
#[derive(Debug, clap::Args)]
pub struct SendingClientArgs {
    /// Send the event as a client does, to the other clients of its topics.
    #[arg(long, help_heading = "As a client")]
    pub as_client: bool,
    /// The file with the client's token.
    /// Defaults to the environment variable SIDEWIRE_TOKEN, or no token if that is unset.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "tenant",
        help_heading = "As a client",
        verbatim_doc_comment
    )]
    pub token_file: Option<PathBuf>,
    /// The PEM file with the certificates to trust for the relay's certificate.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "tenant",
        help_heading = "As a client"
    )]
    pub ca_file: Option<PathBuf>,
    /// The user to connect as, if the relay requires no token.
    #[arg(long, conflicts_with = "tenant", help_heading = "As a client")]
    pub user: Option<String>,
}

/// An event as a client sends it.
struct OutgoingEvent {
    envelope: Vec<u8>,
    message_id: String,
    topics: Vec<Topic>,
}

/// Subscribes to the event's topics, sends it, and writes its message id and topics to `out` if
/// the relay does not refuse it.
pub(super) async fn run(
    args: &SendingClientArgs,
    url: &str,
    schema: &Schema,
    body: &EventBody,
    out: &mut impl Write,
) -> Result<(), CommandFailure> {
    let random = Arc::new(RandomSource::from_system().map_err(CommandFailure::new)?);
    let event = OutgoingEvent::read(schema, body, &random)?;
    let mut options = ClientOptions::new(url, random);
    options.token = credential_of(args.token_file.as_deref(), TOKEN_VARIABLE)?;
    options.user_id.clone_from(&args.user);
    options.tls = client_tls(url, args.ca_file.as_deref())?;
    let mut connection = RelayConnection::open(&options)
        .await
        .map_err(open_failure)?;
    let outcome = within_timeout(send_event(&mut connection, &event)).await;
    connection.close(NORMAL_CLOSE).await;
    outcome?;
    let topics: Vec<_> = event.topics.iter().map(Topic::as_str).collect();
    let sent = json!({"message_id": event.message_id, "topics": topics});
    write_result(out, &sent.to_string())?;
    Ok(())
}

impl OutgoingEvent {
    /// Reads the event, and gives it a message id if it has none.
    fn read(
        schema: &Schema,
        body: &EventBody,
        random: &RandomSource,
    ) -> Result<Self, CommandFailure> {
        let envelope = match body.is_json {
            true => schema
                .envelope_from_client_json(&body.bytes)
                .map_err(CommandFailure::new)?,
            false => body.bytes.clone(),
        };
        let limits = InspectLimits {
            topics: usize::MAX,
            decoded_bytes: usize::MAX,
        };
        let inspected = schema
            .inspect_from_client(&envelope, limits)
            .map_err(CommandFailure::new)?;
        if let Some(message_id) = inspected.message_id {
            return Ok(Self {
                message_id: message_id.to_owned(),
                topics: inspected.topics,
                envelope,
            });
        }
        let message_id = random.uuid_v7(&Clock::system()).to_string();
        let only_id = OnlyMessageId {
            message_id: message_id.clone(),
        };
        let mut kept = inspected.kept_bytes().collect::<Vec<_>>().concat();
        kept.extend(only_id.encode_to_vec());
        Ok(Self {
            envelope: kept,
            message_id,
            topics: inspected.topics,
        })
    }
}

async fn within_timeout(
    sending: impl Future<Output = Result<(), CommandFailure>>,
) -> Result<(), CommandFailure> {
    let answered = timeout(ANSWERS_TIMEOUT, sending).await;
    answered.unwrap_or_else(|_| {
        let seconds = ANSWERS_TIMEOUT.as_secs();
        let message = format!("the relay did not answer within {seconds} s");
        Err(CommandFailure::new(message))
    })
}

async fn send_event(
    connection: &mut RelayConnection,
    event: &OutgoingEvent,
) -> Result<(), CommandFailure> {
    let topics = event.topics.iter().map(Topic::as_str);
    let request = connection
        .subscribe(topics)
        .await
        .map_err(CommandFailure::new)?;
    let is_confirmed = |message: &RelayMessage| matches!(message, RelayMessage::SubscriptionConfirmed(it) if it.request_message_id == request);
    await_answer(connection, is_confirmed).await?;
    let envelope = event.envelope.clone();
    connection
        .send_raw(envelope)
        .await
        .map_err(CommandFailure::new)?;
    // The relay answers in order, and does not answer an event that it accepts.
    connection.send_ping().await.map_err(CommandFailure::new)?;
    await_answer(connection, |it| matches!(it, RelayMessage::Pong(_))).await
}

/// Waits for an answer.
///
/// # Errors
///
/// When the relay refuses what was sent, or the connection ends.
async fn await_answer(
    connection: &mut RelayConnection,
    is_answer: impl Fn(&RelayMessage) -> bool,
) -> Result<(), CommandFailure> {
    loop {
        match connection.receive().await.map_err(CommandFailure::new)? {
            RelayMessage::Error(error) => return Err(refusal(&error)),
            message if is_answer(&message) => return Ok(()),
            _ => {}
        }
    }
}

fn refusal(error: &wire::ErrorResponse) -> CommandFailure {
    let message = format!(
        "the relay refused: {}: {}",
        error.error_code, error.error_message
    );
    if error.error_code == ErrorCode::AuthenticationFailed.as_str() {
        CommandFailure::unauthorized(message)
    } else {
        CommandFailure::new(message)
    }
}

fn open_failure(error: OpenError) -> CommandFailure {
    match error {
        OpenError::Unauthorized(_) => CommandFailure::unauthorized(format!(
            "{error}. Pass the token with --token-file or in {TOKEN_VARIABLE}"
        )),
        error => CommandFailure::new(error),
    }
}

#[cfg(test)]
mod tests;
