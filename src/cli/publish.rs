//! `sidewire publish`: posts an event or a batch to the ingest listener and prints the
//! answer. It does not parse what it posts; the relay does. With `--as-client` it sends an event
//! over a WebSocket instead.

mod as_client;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use sidewire_client::{CallFailure, EventPublisher, PublishEncoding};
use sidewire_protocol::{TenantName, Topic, schema::BundledSchema};

pub use self::as_client::SendingClientArgs;

use super::{
    CommandFailure,
    event_args::{EventArgs, EventBody},
    ingest_access::{call_failure, ingest_key},
    listener_urls, sample_bundled,
    schema_args::{SchemaArgs, SchemaOrConfigArgs, load_schema},
    write_result,
};

/// The flags of `sidewire publish`.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct PublishArgs {
    /// The tenant that the event belongs to. A client's token names its tenant.
    #[arg(
        long,
        value_parser = TenantName::parse,
        required_unless_present = "as_client",
        conflicts_with = "as_client"
    )]
    pub tenant: Option<TenantName>,
    /// The URL of the relay's ingest listener, or unix:PATH for a Unix socket.
    /// Defaults to the listener in --config, or http://127.0.0.1:3001 without --config.
    /// With --as-client the client listener, ws://127.0.0.1:3000/ws without --config.
    #[arg(long, verbatim_doc_comment)]
    pub url: Option<String>,
    /// The file with the ingest key.
    /// Defaults to the environment variable SIDEWIRE_INGEST_KEY, or no key if that is unset.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "as_client",
        verbatim_doc_comment
    )]
    pub key_file: Option<PathBuf>,
    /// A topic in addition to those that the event itself names; repeatable.
    #[arg(
        long = "topic",
        value_name = "KIND:ID",
        value_parser = Topic::parse,
        conflicts_with = "as_client"
    )]
    pub topics: Vec<Topic>,
    /// Post only if the topic's last event is at the position EPOCH:OFFSET,
    /// or only if the topic has no event yet, written as 0; repeatable.
    #[arg(
        long = "if-last",
        value_name = "TOPIC@EPOCH:OFFSET",
        conflicts_with_all = ["batch", "as_client"],
        verbatim_doc_comment
    )]
    pub conditions: Vec<String>,
    /// Post several events, all or none: {"messages": [EVENT, …]}, or a binary BatchUpdate.
    #[arg(long, conflicts_with = "as_client")]
    pub batch: bool,
    /// The flags of a client that sends the event.
    #[command(flatten)]
    pub client: SendingClientArgs,
    /// The schema of a client's event, and where the relay is.
    #[command(flatten)]
    pub schema: SchemaOrConfigArgs,
    /// The event or the batch.
    #[command(flatten)]
    pub event: EventArgs,
}

/// Posts or sends the input, and prints the relay's answer.
pub(super) async fn main(args: PublishArgs) -> Result<(), CommandFailure> {
    run(args, &mut io::stdout()).await
}

/// Posts or sends the input, and writes the relay's answer to `out`, in one line.
///
/// # Errors
///
/// When the config, the schema or the event cannot be read, the relay cannot be reached or
/// refuses, or `out` cannot be written to.
pub async fn run(args: PublishArgs, out: &mut impl Write) -> Result<(), CommandFailure> {
    let body = args.event.read_event(io::stdin())?;
    if !args.client.as_client {
        return post(&args, body, out).await;
    }
    let config = args.schema.load_config()?;
    let url = match &args.url {
        Some(url) => url.clone(),
        None => listener_urls::client_url(&config)?,
    };
    let schema = load_schema(&config.schema.source())?;
    as_client::run(&args.client, &url, &schema, &body, out).await
}

/// Posts the input as a backend does.
async fn post(
    args: &PublishArgs,
    body: EventBody,
    out: &mut impl Write,
) -> Result<(), CommandFailure> {
    if args.schema.schema != SchemaArgs::default() {
        let message =
            "only --as-client needs a schema: a relay reads what backends post with its own";
        return Err(CommandFailure::new(message));
    }
    let key = ingest_key(args.key_file.as_deref())?;
    let publisher =
        EventPublisher::new(&args.ingest_url()?, key.as_ref()).map_err(publish_failure)?;
    let topics: Vec<&str> = args.topics.iter().map(Topic::as_str).collect();
    let encoding = if body.is_json {
        PublishEncoding::Json
    } else {
        PublishEncoding::Protobuf
    };
    let tenant = args.tenant.as_ref().map_or("", TenantName::as_str);
    let bytes = body.bytes;
    let answer = if args.batch {
        publisher.post(tenant, bytes, encoding, &topics, true).await
    } else {
        let conditions: Vec<_> = args.conditions.iter().map(String::as_str).collect();
        publisher
            .post_if_last(tenant, bytes, encoding, &topics, &conditions)
            .await
    };
    let answer = answer.map_err(publish_failure)?;
    if answer.status == 202 {
        tracing::warn!(
            "the relay stored what was posted and will deliver it, but has not yet counted the connections that match"
        );
    }
    let text = String::from_utf8_lossy(&answer.body);
    write_result(out, text.trim_end())?;
    Ok(())
}

impl PublishArgs {
    /// Returns the URL of the ingest listener.
    fn ingest_url(&self) -> Result<String, CommandFailure> {
        if let Some(url) = &self.url {
            return Ok(url.clone());
        }
        listener_urls::ingest_url(&self.schema.load_config()?)
    }
}

fn publish_failure(error: CallFailure) -> CommandFailure {
    if error.may_have_taken_effect() {
        let message = format!("{error}; the events may or may not be stored");
        return CommandFailure::new(message);
    }
    call_failure(error)
}

/// An event for the example of a client, in the bundled schema `generic`.
const CLIENT_EVENT: &str = r#"{"message":{"type":"wave","topics":["room:1"]}}"#;

fn help() -> String {
    let BundledSchema {
        sample_topic: topic,
        sample_event: event,
        ..
    } = sample_bundled();
    format!(
        "Examples:
  sidewire publish --tenant acme --key-file ingest.key '{event}'
  sidewire publish --tenant acme --topic {topic} --file event.json
  sidewire publish --tenant acme --config sidewire.toml --binary --file event.bin
  sidewire publish --tenant acme --url unix:/run/sidewire/ingest.sock '{event}'
  sidewire publish --tenant acme --batch -
  sidewire publish --tenant acme --if-last {topic}@0 '{event}'
  sidewire publish --as-client --token-file ann.jwt --bundled generic '{CLIENT_EVENT}'

The relay stores an event only once, even if it is posted again with the same message_id.
The relay's answer goes to standard output.
With --as-client the relay forwards the event to the other clients of its topics and stores nothing.
Presence lasts until `presence.linger` after the command has ended.
Exit status: 0 if the events are stored, or the client's event was accepted; 3 if the key or the
token is not accepted; 1 if anything else failed."
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: PublishArgs,
    }

    fn parse(words: &[&str]) -> Result<PublishArgs, clap::Error> {
        let words = ["publish", "--tenant", "t"].iter().chain(words);
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn a_batch_cannot_have_conditions() {
        let conditions = parse(&["--if-last", "a:1@0", "--if-last", "b:2@0", "{}"]);
        assert_eq!(conditions.unwrap().conditions, ["a:1@0", "b:2@0"]);
        assert!(parse(&["--if-last", "a:1@0", "--batch", "{}"]).is_err());
    }

    #[test]
    fn flags_of_backends_and_of_clients_do_not_mix() {
        let parse = |words: &[&str]| Command::try_parse_from([&["publish"], words].concat());
        assert!(parse(&["--as-client", "--user", "ann", CLIENT_EVENT]).is_ok());
        for words in [
            &["{}"][..],
            &["--tenant", "t", "--as-client", "{}"],
            &["--tenant", "t", "--user", "ann", "{}"],
            &["--tenant", "t", "--token-file", "ann.jwt", "{}"],
            &["--as-client", "--topic", "a:1", "{}"],
            &["--as-client", "--key-file", "k", "{}"],
            &["--as-client", "--batch", "{}"],
            &["--as-client", "--if-last", "a:1@0", "{}"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn a_schema_for_a_backend_s_event_is_refused() {
        let args = parse(&["--bundled", "generic", "{}"]).unwrap();
        let failure = run(args, &mut Vec::new()).await.unwrap_err();
        assert_eq!(failure.exit_code, 1);
        assert!(failure.to_string().contains("--as-client"), "{failure}");
    }

    #[test]
    fn an_invalid_tenant_or_topic_is_wrong_usage() {
        assert!(parse(&["--topic", "kind", "{}"]).is_err());
        let words = ["publish", "--tenant", "", "{}"];
        assert!(Command::try_parse_from(words).is_err());
    }

    /// Publishes to a server that gives this answer, and returns what was printed.
    async fn publish(answer: &'static str) -> Result<String, CommandFailure> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 4096]).await.unwrap();
            assert!(read > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let args = parse(&["--url", &url, "{}"]).unwrap();
        let mut out = Vec::new();
        let (outcome, ()) = tokio::join!(run(args, &mut out), serving);
        outcome.map(|()| String::from_utf8(out).unwrap())
    }

    #[tokio::test]
    async fn the_answer_is_printed_unchanged() {
        let printed = publish(
            "HTTP/1.1 200 OK\r\nContent-Length: 98\r\n\r\n\
             {\"message_id\":\"m\",\"position\":{\"epoch\":\"e\",\"offset\":\"1\"},\
             \"topics\":[],\"matched\":0,\"duplicate\":false}\n",
        )
        .await
        .unwrap();
        assert!(printed.starts_with("{\"message_id\":\"m\""), "{printed}");
        assert_eq!(printed.matches('\n').count(), 1);
    }

    #[tokio::test]
    async fn a_refused_key_has_its_own_exit_status() {
        for (answer, exit_code) in [
            ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", 3),
            ("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", 1),
        ] {
            assert_eq!(publish(answer).await.unwrap_err().exit_code, exit_code);
        }
    }
}
