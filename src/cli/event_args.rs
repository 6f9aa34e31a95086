//! The flags for a command's input event: an argument, a file or standard input.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use super::CommandFailure;

/// The argument that stands for standard input.
const STDIN: &str = "-";

/// The source of the event, and its encoding.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EventArgs {
    /// Read the input as binary Protocol Buffers. Without this flag a file or standard input is
    /// JSON if it begins with `{`, and binary otherwise.
    #[arg(long, verbatim_doc_comment)]
    pub binary: bool,
    /// Read the input from this file.
    #[arg(long, value_name = "FILE", conflicts_with = "event")]
    pub file: Option<PathBuf>,
    /// The event as proto3 JSON, or - to read it from standard input.
    #[arg(required_unless_present = "file")]
    pub event: Option<String>,
}

/// An input event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventBody {
    /// The unparsed event.
    pub(super) bytes: Vec<u8>,
    /// True if the event is proto3 JSON; false if it is binary.
    pub(super) is_json: bool,
}

impl EventArgs {
    /// Reads the event.
    ///
    /// # Errors
    ///
    /// When the file or `stdin` cannot be read.
    pub(super) fn read_event(&self, mut stdin: impl Read) -> Result<EventBody, CommandFailure> {
        let bytes = match (&self.event, &self.file) {
            (Some(event), _) if event != STDIN => {
                return Ok(EventBody {
                    bytes: event.clone().into_bytes(),
                    is_json: !self.binary,
                });
            }
            (None, Some(path)) if path != Path::new(STDIN) => fs::read(path).map_err(|error| {
                CommandFailure::new(format!("cannot read {}: {error}", path.display()))
            })?,
            _ => {
                let mut bytes = Vec::new();
                stdin.read_to_end(&mut bytes).map_err(|error| {
                    CommandFailure::new(format!("cannot read standard input: {error}"))
                })?;
                bytes
            }
        };
        Ok(EventBody {
            is_json: !self.binary && looks_like_json(&bytes),
            bytes,
        })
    }
}

/// Returns true if the bytes are JSON. No valid envelope or batch begins with `{`, but one can
/// begin with bytes that are white space in JSON; then the last byte decides.
fn looks_like_json(body: &[u8]) -> bool {
    let body = body.trim_ascii_end();
    let trimmed = body.trim_ascii_start();
    let is_object = trimmed.first() == Some(&b'{');
    is_object && (trimmed.len() == body.len() || trimmed.last() == Some(&b'}'))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: EventArgs,
    }

    fn parse(words: &[&str]) -> Result<EventArgs, clap::Error> {
        Command::try_parse_from(["c"].iter().chain(words)).map(|command| command.args)
    }

    #[test]
    fn the_event_comes_from_exactly_one_source() {
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
            let body = parse(words)
                .unwrap()
                .read_event(&b"in the pipe"[..])
                .unwrap();
            assert_eq!(body.bytes, expected.as_bytes(), "{words:?}");
        }
        let missing = parse(&["--file", "/nowhere/event.json"]).unwrap();
        let failure = missing.read_event(&b""[..]).unwrap_err().to_string();
        assert!(failure.contains("/nowhere/event.json"), "{failure}");
    }

    #[test]
    fn an_argument_is_json_and_other_input_is_json_if_it_looks_like_it() {
        let is_json =
            |words: &[&str], stdin: &[u8]| parse(words).unwrap().read_event(stdin).unwrap().is_json;
        assert!(is_json(&["not JSON"], b""));
        assert!(is_json(&["-"], b"{}"));
        assert!(!is_json(&["-"], b"\x0a\x01m"));
        assert!(!is_json(&["--binary", "-"], b"{}"));
        assert!(!is_json(&["--binary", "--file", "-"], b"{}"));
    }

    #[test]
    fn json_is_distinguished_from_a_binary_envelope() {
        for json in [&b"{}"[..], b" \n{\"a\": 1}\n", b"{\"cut", b"\n{ } "] {
            assert!(looks_like_json(json), "{json:?}");
        }
        let long_id = [&b"\x0a\x7b"[..], &[b'm'; 123]].concat();
        for binary in [&b""[..], &long_id, b"\x0a\x01m", b"\x12\x00"] {
            assert!(!looks_like_json(binary), "{binary:?}");
        }
    }
}
