//! `sidewire publish`: posts an event or a batch to the ingest listener and prints the
//! answer. It does not parse what it posts; the relay does.

use std::{
    env,
    io::{self, Write},
    path::PathBuf,
};

use sidewire_client::{EventPublisher, PublishEncoding, PublishFailure};
use sidewire_protocol::{TenantName, Topic, schema::BundledSchema};

use super::{
    CommandFailure, event_args::EventArgs, listener_urls, read_credential, sample_bundled,
    write_result,
};
use crate::config::Config;

/// The environment variable that holds the ingest key when no file is named.
const KEY_VARIABLE: &str = "SIDEWIRE_INGEST_KEY";

/// The flags of `sidewire publish`.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct PublishArgs {
    /// The tenant that the event belongs to.
    #[arg(long, value_parser = TenantName::parse)]
    pub tenant: TenantName,
    /// The URL of the relay's ingest listener, or unix:PATH for a Unix socket.
    /// Defaults to the listener in --config, or http://127.0.0.1:3001 without --config.
    #[arg(long, verbatim_doc_comment)]
    pub url: Option<String>,
    /// The relay's config file, which says where its ingest listener is.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The file with the ingest key.
    /// Defaults to the environment variable SIDEWIRE_INGEST_KEY, or no key if that is unset.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub key_file: Option<PathBuf>,
    /// A topic in addition to those that the event itself names; repeatable.
    #[arg(long = "topic", value_name = "KIND:ID", value_parser = Topic::parse)]
    pub topics: Vec<Topic>,
    /// Post only if the topic's last event is at the position EPOCH:OFFSET,
    /// or only if the topic has no event yet, written as 0; repeatable.
    #[arg(
        long = "if-last",
        value_name = "TOPIC@EPOCH:OFFSET",
        conflicts_with = "batch",
        verbatim_doc_comment
    )]
    pub conditions: Vec<String>,
    /// Post several events, all or none: {"messages": [EVENT, …]}, or a binary BatchUpdate.
    #[arg(long)]
    pub batch: bool,
    /// The event or the batch.
    #[command(flatten)]
    pub event: EventArgs,
}

/// Posts the input and prints the relay's answer.
pub(super) async fn main(args: PublishArgs) -> Result<(), CommandFailure> {
    run(args, &mut io::stdout()).await
}

/// Posts the input and writes the relay's answer to `out`, in one line.
///
/// # Errors
///
/// When the config or the event cannot be read, the relay cannot be reached or refuses,
/// or `out` cannot be written to.
pub async fn run(args: PublishArgs, out: &mut impl Write) -> Result<(), CommandFailure> {
    let key = read_credential(args.key_file.as_deref(), env::var(KEY_VARIABLE).ok())?;
    let publisher =
        EventPublisher::new(&args.ingest_url()?, key.as_ref()).map_err(publish_failure)?;
    let topics: Vec<&str> = args.topics.iter().map(Topic::as_str).collect();
    let body = args.event.read_event(io::stdin())?;
    let encoding = if body.is_json {
        PublishEncoding::Json
    } else {
        PublishEncoding::Protobuf
    };
    let (tenant, bytes) = (args.tenant.as_str(), body.bytes);
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
        let config = match &self.config {
            Some(path) => Config::load(path).map_err(CommandFailure::new)?,
            None => Config::default(),
        };
        listener_urls::ingest_url(&config)
    }
}

fn publish_failure(error: PublishFailure) -> CommandFailure {
    match &error {
        PublishFailure::Refused(problem) if problem.status == 401 => CommandFailure::unauthorized(
            format!("{error}. Pass the ingest key with --key-file or in {KEY_VARIABLE}"),
        ),
        _ => CommandFailure::new(error),
    }
}

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

The relay stores an event only once, even if it is posted again with the same message_id.
The relay's answer goes to standard output.
Exit status: 0 if the events are stored, 3 if the key is not accepted, 1 if anything else failed."
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
