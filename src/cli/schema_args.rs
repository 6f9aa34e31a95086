//! The flags that select the schema of a command.

use std::path::{Path, PathBuf, absolute};

use clap::ArgGroup;
use sidewire_protocol::{
    schema::{BundledSchema, PayloadType, Schema, SchemaSource},
    suggest::nearest_name,
};

use super::CommandFailure;
use crate::config::{Config, SchemaSection};

/// The schema flags of a command. The default is the bundled schema that a relay uses when its
/// configuration names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(group = ArgGroup::new("schema files").args(["files", "descriptor_set"]))]
pub struct SchemaArgs {
    /// A .proto file of the schema; repeatable. Imported files need not be listed.
    #[arg(
        long = "schema",
        value_name = "FILE",
        requires = "envelope",
        conflicts_with = "bundled",
        help_heading = "Schema"
    )]
    pub files: Vec<PathBuf>,
    /// A directory to search for imported .proto files; repeatable.
    #[arg(long, value_name = "DIR", requires = "files", help_heading = "Schema")]
    pub include: Vec<PathBuf>,
    /// A compiled schema, as `protoc --descriptor_set_out` or `buf build` writes it.
    #[arg(
        long,
        value_name = "FILE",
        requires = "envelope",
        conflicts_with = "bundled",
        help_heading = "Schema"
    )]
    pub descriptor_set: Option<PathBuf>,
    /// The full name of the schema's envelope message, such as chat.v1.Envelope.
    #[arg(
        long,
        value_name = "NAME",
        requires = "schema files",
        help_heading = "Schema"
    )]
    pub envelope: Option<String>,
    /// The name of a schema built into the program.
    #[arg(long, value_name = "NAME", help_heading = "Schema")]
    pub bundled: Option<String>,
}

impl SchemaArgs {
    /// Returns the source of the schema.
    #[must_use]
    pub fn source(&self) -> SchemaSource {
        self.section().source()
    }

    /// Returns the flags as a section of a configuration.
    #[must_use]
    pub fn section(&self) -> SchemaSection {
        SchemaSection {
            bundled: self.bundled.clone(),
            files: self.files.clone(),
            include: self.include.clone(),
            descriptor_set: self.descriptor_set.clone(),
            envelope: self.envelope.clone(),
        }
    }

    /// Returns the flags as command-line words, with absolute paths.
    #[must_use]
    pub fn to_words(&self) -> Vec<String> {
        let path = |path: &Path| {
            let absolute = absolute(path).unwrap_or_else(|_| path.to_owned());
            absolute.display().to_string()
        };
        let files = self.files.iter().map(|it| ("--schema", path(it)));
        let include = self.include.iter().map(|it| ("--include", path(it)));
        let set = self.descriptor_set.iter();
        let set = set.map(|it| ("--descriptor-set", path(it)));
        let envelope = self.envelope.iter().map(|it| ("--envelope", it.clone()));
        let bundled = self.bundled.iter().map(|it| ("--bundled", it.clone()));
        let flags = files.chain(include).chain(set).chain(envelope);
        flags
            .chain(bundled)
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }
}

/// The schema flags, or a config file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SchemaOrConfigArgs {
    /// The schema flags.
    #[command(flatten)]
    pub schema: SchemaArgs,
    /// Use the schema in this config file of a relay.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["files", "descriptor_set", "bundled"],
        help_heading = "Schema"
    )]
    pub config: Option<PathBuf>,
}

impl SchemaOrConfigArgs {
    /// Returns the configuration in the file, or the defaults with the schema of the flags.
    pub(super) fn load_config(&self) -> Result<Config, CommandFailure> {
        match &self.config {
            Some(path) => Config::load(path).map_err(|error| CommandFailure::config(&error)),
            None => Ok(Config {
                schema: self.schema.section(),
                ..Config::default()
            }),
        }
    }

    /// Returns the source of the schema.
    pub(super) fn source(&self) -> Result<SchemaSource, CommandFailure> {
        Ok(self.load_config()?.schema.source())
    }
}

/// Loads a schema for a command.
pub(super) fn load_schema(source: &SchemaSource) -> Result<Schema, CommandFailure> {
    let failure = |error| CommandFailure::new(format!("the schema cannot be used\n{error}"));
    source.load().map_err(failure)
}

/// Returns the event with this name, in the style of the .proto or of JSON.
pub(super) fn find_event<'s>(
    schema: &'s Schema,
    name: &str,
) -> Result<&'s PayloadType, CommandFailure> {
    let mut events = schema.events();
    events
        .find(|event| event.name == name || schema.json_name(event) == name)
        .ok_or_else(|| unknown_event(schema, name))
}

fn unknown_event(schema: &Schema, name: &str) -> CommandFailure {
    let names: Vec<_> = schema.events().map(|event| event.name.as_str()).collect();
    let json_names: Vec<_> = schema
        .events()
        .map(|event| schema.json_name(event))
        .collect();
    let json_names = json_names.iter().map(String::as_str);
    // `nearest_name` prefers the last of equally near names, so the names in the .proto come last.
    let known = json_names.chain(names.iter().copied());
    let suggestion = nearest_name(name, known)
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_default();
    CommandFailure::new(format!(
        "the schema has no event `{name}`{suggestion}\n  hint: its events are {}",
        names.join(", ")
    ))
}

/// Returns the schema's entry in `proto/bundled.toml`; `None` if it is not a bundled schema.
pub(super) fn find_bundled(source: &SchemaSource) -> Result<Option<BundledSchema>, CommandFailure> {
    let bundled = match source {
        SchemaSource::Bundled(None) => BundledSchema::load_default(),
        SchemaSource::Bundled(Some(name)) => BundledSchema::by_name(name),
        SchemaSource::Files { .. } | SchemaSource::DescriptorSet { .. } => return Ok(None),
    };
    bundled.map(Some).map_err(CommandFailure::new)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: SchemaOrConfigArgs,
    }

    fn parse(flags: &str) -> Result<SchemaOrConfigArgs, clap::Error> {
        let words = std::iter::once("c").chain(flags.split_whitespace());
        Command::try_parse_from(words).map(|command| command.args)
    }

    #[test]
    fn the_flags_select_one_schema_source() {
        let source = |flags| parse(flags).unwrap().schema.source();
        assert_eq!(source(""), SchemaSource::Bundled(None));
        assert_eq!(
            source("--bundled generic"),
            SchemaSource::Bundled(Some("generic".to_owned()))
        );
        assert_eq!(
            source("--schema a.proto --schema d/b.proto --include d --envelope a.E"),
            SchemaSource::Files {
                files: vec!["a.proto".into(), "d/b.proto".into()],
                include: vec!["d".into()],
                envelope: "a.E".to_owned(),
            }
        );
        assert_eq!(
            source("--descriptor-set a.binpb --envelope a.E"),
            SchemaSource::DescriptorSet {
                file: "a.binpb".into(),
                envelope: "a.E".to_owned(),
            }
        );
        assert_eq!(
            parse("--config c.toml").unwrap().config,
            Some("c.toml".into())
        );
    }

    #[test]
    fn contradictory_flags_are_wrong_usage() {
        for flags in [
            "--schema a.proto",
            "--envelope a.E",
            "--include d",
            "--descriptor-set a.binpb",
            "--bundled generic --envelope a.E",
            "--schema a.proto --envelope a.E --bundled generic",
            "--schema a.proto --envelope a.E --descriptor-set a.binpb",
            "--config c.toml --bundled generic",
            "--config c.toml --schema a.proto --envelope a.E",
        ] {
            assert!(parse(flags).is_err(), "{flags}");
        }
    }

    #[test]
    fn the_repeated_flags_work_in_any_directory() {
        let words = |flags| parse(flags).unwrap().schema.to_words();
        assert_eq!(words(""), [""; 0]);
        assert_eq!(words("--bundled generic"), ["--bundled", "generic"]);
        let here = std::env::current_dir().unwrap();
        let file = here.join("a.proto").display().to_string();
        assert_eq!(
            words("--schema a.proto --envelope a.E"),
            ["--schema", &file, "--envelope", "a.E"]
        );
    }
}
