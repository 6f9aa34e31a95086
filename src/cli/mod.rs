//! The command line: one file per subcommand, with its flags and its code. Results go to
//! standard output, everything else to the log. The commands use the library's public
//! functions only.

pub mod bench;
pub mod check;
mod connection_columns;
pub mod ctl;
pub mod dev;
pub mod event_args;
pub mod generate;
pub mod ingest_access;
pub mod keys;
mod listener_urls;
mod plain_text;
pub mod publish;
pub mod route;
mod runtime;
pub mod schema;
pub mod schema_args;
mod secret_file;
pub mod serve;
pub mod signing;
pub mod tail;
mod text_table;
pub mod token;
pub mod top;

use std::{
    env::{self, VarError},
    fmt, fs,
    io::{self, IsTerminal},
    path::Path,
    sync::Arc,
};

use clap::{Parser, Subcommand};

use rustls::ClientConfig;
use sidewire_client::Credential;
use sidewire_protocol::schema::BundledSchema;

use crate::{config::ConfigError, tls};

/// The environment variable that holds a client's token when no file is named. The token is not
/// an argument, since every user of the machine can read arguments.
const TOKEN_VARIABLE: &str = "SIDEWIRE_TOKEN";

const HELP: &str = "Examples:
  sidewire dev                            a relay for trying things out, and commands to paste
  sidewire serve --config sidewire.toml   a relay with a config file
  sidewire COMMAND --help                 examples of a command";

/// A pub/sub relay: backends post events, and clients receive those of their topics.
// Not wrapped: a line break in an example would break the command that is pasted.
#[derive(Debug, Parser)]
#[command(name = "sidewire", version, term_width = 0, after_help = HELP)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Run the relay.
    Serve(serve::ServeArgs),
    /// Test a config file and report what is wrong with it.
    Check(check::CheckArgs),
    /// Make the secrets that a config file names and that do not exist yet.
    Keys(keys::KeysArgs),
    /// Run a relay for trying things out, without a config file.
    Dev(dev::DevArgs),
    /// Sign a token for a client.
    Token(token::TokenArgs),
    /// Post an event as a backend does, or send one as a client does.
    Publish(publish::PublishArgs),
    /// Follow topics as a client does, and print their events.
    Tail(tail::TailArgs),
    /// Show which topics an event reaches and why, without a relay.
    Route(route::RouteArgs),
    /// Print the routing table of a schema, or export the .proto files that schemas import.
    Schema(schema::SchemaCommandArgs),
    /// Look into a running relay, and disconnect users.
    Ctl(ctl::CtlArgs),
    /// Show what a running relay does, again and again.
    Top(top::TopArgs),
    /// Put a relay under load and measure its throughput, latency and cost.
    Bench(bench::BenchArgs),
    /// Write the manual pages or the shell completions of the command line, for packages.
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    ///
    /// When the subcommand fails.
    pub fn run(self) -> Result<(), CommandFailure> {
        match self.command {
            CliCommand::Serve(args) => serve::run(&args),
            CliCommand::Check(args) => check::run(&args),
            CliCommand::Keys(args) => keys::run(&args),
            CliCommand::Dev(args) => dev::run(&args),
            CliCommand::Token(args) => token::run(&args),
            CliCommand::Publish(args) => runtime::run_client(|| publish::main(args)),
            CliCommand::Tail(args) => runtime::run_client(|| tail::main(args)),
            CliCommand::Route(args) => route::run(args),
            CliCommand::Schema(args) => schema::run(&args),
            CliCommand::Ctl(args) => runtime::run_client(|| ctl::main(args)),
            CliCommand::Top(args) => top::run(&args),
            CliCommand::Bench(args) => bench::run(args),
            CliCommand::Generate(args) => generate::run(&args),
        }
    }
}

/// Why a command failed: a message for the log and the exit status.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandFailure {
    message: String,
    /// 1, or 3 where a token or key was not accepted. (2 is wrong usage.)
    pub exit_code: u8,
}

impl CommandFailure {
    /// A failure with exit status 1.
    pub fn new(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            exit_code: 1,
        }
    }

    /// A configuration that cannot be used: exit status 1. Shows the lines of the file at a
    /// terminal, and one line for each problem elsewhere.
    pub fn config(error: &ConfigError) -> Self {
        if !io::stderr().is_terminal() {
            return Self::new(error);
        }
        // <https://no-color.org>
        let is_colored = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let lines = error.with_source_lines(is_colored);
        Self::new(format!("the configuration cannot be used\n{lines}"))
    }

    /// A token or key that was not accepted: exit status 3.
    pub fn unauthorized(message: impl fmt::Display) -> Self {
        Self {
            message: message.to_string(),
            exit_code: 3,
        }
    }
}

/// Returns the default bundled schema, with its example topic and event.
fn sample_bundled() -> BundledSchema {
    BundledSchema::load_default().unwrap_or_default()
}

/// Reads the credential from the file, or from the environment variable with this name if no file is
/// given. White space around it is ignored.
fn credential_of(
    file: Option<&Path>,
    variable: &str,
) -> Result<Option<Credential>, CommandFailure> {
    let value = match env::var(variable) {
        Ok(value) => Some(value),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) if file.is_some() => None,
        Err(VarError::NotUnicode(_)) => {
            let message = format!("the environment variable {variable} is not UTF-8");
            return Err(CommandFailure::new(message));
        }
    };
    read_credential(file, value, variable)
}

/// Reads the credential from the file, or from the value of the environment variable with this name
/// if no file is given.
fn read_credential(
    file: Option<&Path>,
    value: Option<String>,
    variable: &str,
) -> Result<Option<Credential>, CommandFailure> {
    let (text, origin) = match (file, value) {
        (Some(path), _) => {
            let text = fs::read_to_string(path).map_err(|error| {
                CommandFailure::new(format!("cannot read {}: {error}", path.display()))
            })?;
            (text, path.display().to_string())
        }
        (None, Some(text)) => (text, format!("the environment variable {variable}")),
        (None, None) => return Ok(None),
    };
    let text = text.trim();
    if text.is_empty() {
        return Err(CommandFailure::new(format!("{origin} is empty")));
    }
    Ok(Some(Credential::new(text)))
}

/// Returns the TLS configuration for a `wss:` URL, which trusts the certificates in the file, or
/// those that the system trusts if no file is named; `None` for other URLs.
fn client_tls(
    url: &str,
    ca_file: Option<&Path>,
) -> Result<Option<Arc<ClientConfig>>, CommandFailure> {
    if !url.starts_with("wss:") {
        return Ok(None);
    }
    let Some(path) = ca_file else {
        let trusted = tls::client_config(None).map_err(CommandFailure::new)?;
        return Ok(Some(trusted));
    };
    let shown = path.display();
    let file = fs::read(path)
        .map_err(|error| CommandFailure::new(format!("cannot read {shown}: {error}")))?;
    tls::client_config(Some(&file))
        .map(Some)
        .map_err(|error| CommandFailure::new(format!("{shown} {error}")))
}

/// Writes a result. Returns `false` if the reader has closed the pipe, which is not a failure:
/// the command then ends quietly, as the shell's own commands do.
fn write_result(out: &mut impl io::Write, text: &str) -> Result<bool, CommandFailure> {
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandFailure::new(format!(
            "cannot write to standard output: {error}"
        ))),
    }
}

#[cfg(test)]
mod fake_relay;

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_of_every_command_has_an_example_that_parses() {
        let mut cli = Cli::command();
        cli.build();
        let names: Vec<_> = cli
            .get_subcommands()
            .map(|command| command.get_name().to_owned())
            .filter(|name| name != "help")
            .collect();
        assert_eq!(names.len(), 13);
        for name in names {
            let help = cli.find_subcommand_mut(&name).unwrap().render_long_help();
            let help = help.to_string();
            let begin = format!("  sidewire {name}");
            let examples: Vec<_> = help.lines().filter(|it| it.starts_with(&begin)).collect();
            assert!(!examples.is_empty(), "{help}");
            let too_wide = |line: &&str| {
                let not_ours = ["  sidewire", "Usage: ", "          [possible values: "];
                line.chars().count() > 100 && !not_ours.iter().any(|it| line.starts_with(it))
            };
            assert_eq!(help.lines().find(too_wide), None);
            for example in examples {
                let parsed = Cli::try_parse_from(words(example));
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
            }
        }
    }

    /// The words of a shell command that knows single quotes only.
    fn words(command: &str) -> Vec<String> {
        command
            .split('\'')
            .enumerate()
            .flat_map(|(index, part)| match index % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            })
            .collect()
    }

    #[test]
    fn a_credential_is_read_from_the_file_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, " in-the-file\n").unwrap();
        let variable = || Some("in-the-environment".to_owned());
        for (file, variable, expected) in [
            (Some(path.as_path()), variable(), Some("in-the-file")),
            (None, variable(), Some("in-the-environment")),
            (None, None, None),
        ] {
            let found = read_credential(file, variable, "KEY").unwrap();
            assert_eq!(found.as_ref().map(Credential::reveal), expected);
        }
    }

    #[test]
    fn a_missing_credential_is_a_failure_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (missing, empty) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&empty, "\n").unwrap();
        for path in [missing, empty] {
            let failure = read_credential(Some(&path), None, "KEY")
                .unwrap_err()
                .to_string();
            assert!(failure.contains(&path.display().to_string()), "{failure}");
        }
        let empty = read_credential(None, Some(String::new()), "KEY").unwrap_err();
        assert_eq!(empty.to_string(), "the environment variable KEY is empty");
    }
}
