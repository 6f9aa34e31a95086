//! `sidewire publish`: posts JSON to the ingest listener and prints the answer.
//! Does not look into the JSON; the relay does.

use std::{
    env, fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{Failure, credential, sample, write_result};
use crate::{
    client::{Encoding, PublishError, Publisher},
    protocol::{TenantName, Topic},
    schema::Bundled,
};

/// Where the ingest key is looked for when no file is named.
const KEY_VARIABLE: &str = "SIDEWIRE_INGEST_KEY";

/// Stands for standard input.
const STDIN: &str = "-";

/// What to post, and where.
#[derive(Debug, clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// The tenant whose clients get it.
    #[arg(long, value_parser = TenantName::parse)]
    pub tenant: TenantName,
    /// The relay's ingest listener; unix:PATH where it is a Unix socket.
    #[arg(long, default_value = "http://127.0.0.1:3001")]
    pub url: String,
    /// The file with the ingest key.
    /// Else the environment variable SIDEWIRE_INGEST_KEY is used, else no key.
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub key_file: Option<PathBuf>,
    /// A topic in addition to those that the event names itself; repeatable.
    #[arg(long = "topic", value_name = "KIND:ID", value_parser = Topic::parse)]
    pub topics: Vec<Topic>,
    /// Post only if this event is the topic's last: where it stands as EPOCH:OFFSET,
    /// or 0 where there must be none; repeatable.
    #[arg(
        long = "if-last",
        value_name = "TOPIC@EPOCH:OFFSET",
        conflicts_with = "batch",
        verbatim_doc_comment
    )]
    pub conditions: Vec<String>,
    /// Post several events, all or none: the JSON is {"messages": [EVENT, …]}.
    #[arg(long)]
    pub batch: bool,
    /// Read the JSON from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub file: Option<PathBuf>,
    /// The event as proto3 JSON, or - to read it from standard input.
    #[arg(required_unless_present = "file")]
    pub json: Option<String>,
}

/// Posts, and prints the relay's answer.
pub(super) async fn main(args: Args) -> Result<(), Failure> {
    run(args, &mut io::stdout()).await
}

/// Posts, and writes the relay's answer to `out`, in one line.
///
/// # Errors
///
/// When the JSON cannot be read, the relay cannot be reached or refuses, or `out`
/// cannot be written to.
pub async fn run(args: Args, out: &mut impl Write) -> Result<(), Failure> {
    let key = credential(args.key_file.as_deref(), env::var(KEY_VARIABLE).ok())?;
    let publisher = Publisher::new(&args.url, key.as_ref()).map_err(failure)?;
    let topics: Vec<&str> = args.topics.iter().map(Topic::as_str).collect();
    let body = body(args.json, args.file.as_deref(), io::stdin())?;
    let (tenant, json) = (args.tenant.as_str(), Encoding::Json);
    let answer = if args.batch {
        publisher.post(tenant, body, json, &topics, true).await
    } else {
        let conditions: Vec<_> = args.conditions.iter().map(String::as_str).collect();
        publisher
            .post_if_last(tenant, body, json, &topics, &conditions)
            .await
    };
    let answer = answer.map_err(failure)?;
    if answer.status == 202 {
        tracing::warn!(
            "the relay is slow: it has stored this and will deliver it, but cannot say yet to how many"
        );
    }
    let text = String::from_utf8_lossy(&answer.body);
    write_result(out, text.trim_end())?;
    Ok(())
}

fn body(
    json: Option<String>,
    file: Option<&Path>,
    mut stdin: impl Read,
) -> Result<Vec<u8>, Failure> {
    match (json, file) {
        (Some(json), _) if json != STDIN => Ok(json.into_bytes()),
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

fn failure(error: PublishError) -> Failure {
    match &error {
        PublishError::Refused(problem) if problem.status == 401 => Failure::unauthorized(format!(
            "{error}. Give the ingest key with --key-file or in {KEY_VARIABLE}"
        )),
        _ => Failure::new(error),
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
  sidewire publish --tenant acme --key-file ingest.key '{event}'
  sidewire publish --tenant acme --topic {topic} --file event.json
  sidewire publish --tenant acme --url unix:/run/sidewire/ingest.sock '{event}'
  sidewire publish --tenant acme --batch -
  sidewire publish --tenant acme --if-last {topic}@0 '{event}'

An event that is posted again under its message_id is not taken twice.
The relay's answer goes to standard output.
Exit status: 0 if the events are stored, 3 if the key is not accepted, 1 if something else failed."
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
        args: Args,
    }

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        let words = ["publish", "--tenant", "t"].iter().chain(words);
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn the_body_comes_from_one_place() {
        for words in [&[][..], &["{}", "--file", "f"]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("event.json");
        fs::write(&path, "in the file").unwrap();
        let path = path.to_str().unwrap();
        for (words, expected) in [
            (&["{}"][..], "{}"),
            (&["--file", path], "in the file"),
            (&["-"], "in the pipe"),
            (&["--file", "-"], "in the pipe"),
        ] {
            let args = parse(words).unwrap();
            let body = body(args.json, args.file.as_deref(), &b"in the pipe"[..]).unwrap();
            assert_eq!(body, expected.as_bytes(), "{words:?}");
        }
    }

    #[test]
    fn a_batch_has_no_conditions() {
        let conditions = parse(&["--if-last", "a:1@0", "--if-last", "b:2@0", "{}"]);
        assert_eq!(conditions.unwrap().conditions, ["a:1@0", "b:2@0"]);
        assert!(parse(&["--if-last", "a:1@0", "--batch", "{}"]).is_err());
    }

    #[test]
    fn a_tenant_or_topic_that_is_none_is_wrong_usage() {
        assert!(parse(&["--topic", "kind", "{}"]).is_err());
        let words = ["publish", "--tenant", "", "{}"];
        assert!(Command::try_parse_from(words).is_err());
    }

    /// Publishes to who answers this, and returns what was printed.
    async fn publish(answer: &'static str) -> Result<String, Failure> {
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
    async fn the_answer_is_printed_as_it_came() {
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
