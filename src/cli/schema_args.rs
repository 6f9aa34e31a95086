//! The flags by which a command is told its schema.

use std::path::{Path, PathBuf, absolute};

use clap::ArgGroup;

use super::Failure;
use crate::{
    config::{Config, SchemaSection},
    schema::{Bundled, PayloadType, Schema, SchemaSource},
    suggest::nearest,
};

/// Which schema a command works with; by default the bundled one that serves where the
/// configuration names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(group = ArgGroup::new("schema files").args(["files", "descriptor_set"]))]
pub struct SchemaArgs {
    /// A .proto file of the schema; repeatable. Imports need not be named.
    #[arg(
        long = "schema",
        value_name = "FILE",
        requires = "envelope",
        conflicts_with = "bundled",
        help_heading = "Schema"
    )]
    pub files: Vec<PathBuf>,
    /// A directory in which imported .proto files are looked for; repeatable.
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
    /// One of the schemas that the program has in itself.
    #[arg(long, value_name = "NAME", help_heading = "Schema")]
    pub bundled: Option<String>,
}

impl SchemaArgs {
    /// Where the schema comes from.
    #[must_use]
    pub fn source(&self) -> SchemaSource {
        self.section().source()
    }

    /// The same as a section of a configuration.
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

    /// The flags again, as the words of a command that can be run in any directory.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
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

/// The same, or the schema of a config file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SchemaOrConfigArgs {
    /// The flags.
    #[command(flatten)]
    pub schema: SchemaArgs,
    /// The schema of a relay with this config file.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["files", "descriptor_set", "bundled"],
        help_heading = "Schema"
    )]
    pub config: Option<PathBuf>,
}

impl SchemaOrConfigArgs {
    /// The configuration: that of the file, or the defaults with the schema of the flags.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        match &self.config {
            Some(path) => Config::load(path).map_err(Failure::new),
            None => Ok(Config::default()),
        }
    }

    /// Where the schema comes from.
    pub(super) fn source(&self) -> Result<SchemaSource, Failure> {
        Ok(match &self.config {
            Some(_) => self.config()?.schema.source(),
            None => self.schema.source(),
        })
    }
}

/// Loads a schema for a command.
pub(super) fn load(source: &SchemaSource) -> Result<Schema, Failure> {
    let failure = |error| Failure::new(format!("the schema cannot be used\n{error}"));
    source.load().map_err(failure)
}

/// The event of this name, in either style.
pub(super) fn find_event<'s>(schema: &'s Schema, name: &str) -> Result<&'s PayloadType, Failure> {
    let mut events = schema.events();
    events
        .find(|event| event.name == name || schema.json_name(event) == name)
        .ok_or_else(|| {
            let names: Vec<_> = schema.events().map(|event| event.name.as_str()).collect();
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("it has {}", names.join(", ")),
            };
            Failure::new(format!("the schema has no event `{name}`; {hint}"))
        })
}

/// What `proto/bundled.toml` says about the schema, where it is a bundled one.
pub(super) fn bundled(source: &SchemaSource) -> Result<Option<Bundled>, Failure> {
    let bundled = match source {
        SchemaSource::Bundled(None) => Bundled::load(),
        SchemaSource::Bundled(Some(name)) => Bundled::named(name),
        SchemaSource::Files { .. } | SchemaSource::DescriptorSet { .. } => return Ok(None),
    };
    bundled.map(Some).map_err(Failure::new)
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
    fn the_flags_name_one_source() {
        let source = |flags| parse(flags).unwrap().schema.source();
        assert_eq!(source(""), SchemaSource::Bundled(None));
        assert_eq!(
            source("--bundled generic"),
            SchemaSource::Bundled(Some("generic".to_owned()))
        );
        assert_eq!(
            source("--schema a.proto --schema b.proto --include d --envelope a.E"),
            SchemaSource::Files {
                files: vec!["a.proto".into(), "b.proto".into()],
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
    fn flags_that_contradict_each_other_are_wrong_usage() {
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
    fn the_words_work_in_any_directory() {
        let words = |flags| parse(flags).unwrap().schema.words();
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
