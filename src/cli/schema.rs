//! `sidewire schema`: prints the routing table of a schema, a sample of one of its
//! events, or writes the .proto files that it imports. Needs no relay.

mod export;
mod table;

use std::{io, path::PathBuf};

use clap::ValueEnum;
use sidewire_protocol::schema::Schema;

use self::table::RoutingTableView;
use super::{
    CommandFailure,
    schema_args::{self, SchemaOrConfigArgs, find_event},
    write_result,
};

/// The flags of `sidewire schema`.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct SchemaCommandArgs {
    /// The schema.
    #[command(flatten)]
    pub schema: SchemaOrConfigArgs,
    /// The format of the routing table.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Print a sample of this event instead, as JSON that can be published.
    #[arg(long, value_name = "EVENT", conflicts_with = "export")]
    pub sample: Option<String>,
    /// Write the .proto files that schemas import into this directory instead: the one that
    /// the paths in your imports start from. With a bundled schema, write its files too.
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    pub export: Option<PathBuf>,
    /// With --export: overwrite existing files that differ.
    #[arg(long, requires = "export")]
    pub force: bool,
}

const HELP: &str = "Examples:
  sidewire schema
  sidewire schema --schema chat.proto --envelope chat.v1.Envelope
  sidewire schema --config sidewire.toml --format json
  sidewire schema --bundled generic --sample event
  sidewire schema --export proto

The table shows the topics of each event: `field → topic` means that a value in the field gives
the topic. `[]` marks a list and `{}` a map. The fields of a recursive message are listed once.
docs/cli.md describes the JSON.
--export writes sidewire/v1/options.proto and sidewire/v1/relay.proto, for editors, protoc and buf.
Exit status: 0, or 1 if the schema cannot be used or a file cannot be written.";

/// The format of the routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text for humans.
    Text,
    /// JSON for programs.
    Json,
}

/// Prints the routing table or a sample, or exports the files.
pub(super) fn run(args: &SchemaCommandArgs) -> Result<(), CommandFailure> {
    let source = args.schema.source()?;
    if let Some(directory) = &args.export {
        let written = export::export_files(&source, directory, args.force)?;
        return write_result(&mut io::stdout(), &written.join("\n")).map(drop);
    }
    let schema = schema_args::load_schema(&source)?;
    let text = match &args.sample {
        Some(name) => schema
            .sample_event(find_event(&schema, name)?)
            .event
            .to_string(),
        None => table_text(&schema, args.format)?,
    };
    write_result(&mut io::stdout(), &text).map(drop)
}

fn table_text(schema: &Schema, format: Format) -> Result<String, CommandFailure> {
    let table = RoutingTableView::from_schema(schema);
    match format {
        Format::Text => Ok(table.to_string().trim_end().to_owned()),
        Format::Json => serde_json::to_string_pretty(&table).map_err(CommandFailure::new),
    }
}
