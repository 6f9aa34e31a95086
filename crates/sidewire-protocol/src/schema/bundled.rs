//! The schemas bundled with the relay, and examples of their use.

use std::{collections::BTreeSet, fmt};

use prost_reflect::{DescriptorError, DescriptorPool};
use serde::Deserialize;

use crate::suggest::nearest_name;

use super::{
    Schema, SchemaError, compile::SchemaDraft, diagnostic::Diagnostic, report::SchemaReport,
};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bundled.binpb"));
const ABOUT: &str = include_str!(concat!(env!("OUT_DIR"), "/bundled.toml"));

/// The file `proto/bundled.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundledManifest {
    schema: Vec<BundledSchema>,
}

/// A bundled schema, as described in `proto/bundled.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BundledSchema {
    /// The name by which the configuration selects it.
    pub name: String,
    /// The envelope's full name.
    pub envelope: String,
    /// A topic for examples.
    pub sample_topic: String,
    /// An event that relates to that topic, as proto3 JSON without single quotes.
    pub sample_event: String,
    /// True if the sample event names no topic itself, so that the call that posts it must.
    #[serde(default)]
    pub topic_in_call: bool,
}

impl BundledSchema {
    /// Returns every bundled schema, the default first.
    ///
    /// # Errors
    ///
    /// Cannot fail in a binary that passed its tests.
    pub fn load_all() -> Result<Vec<Self>, SchemaError> {
        let about: BundledManifest =
            toml::from_str(ABOUT).map_err(|error| bundled_error(&error))?;
        Ok(about.schema)
    }

    /// Returns the default schema, used when no other is configured.
    ///
    /// # Errors
    ///
    /// Cannot fail in a binary that passed its tests.
    pub fn load_default() -> Result<Self, SchemaError> {
        Self::load_all()?
            .into_iter()
            .next()
            .ok_or_else(|| bundled_error(&"proto/bundled.toml names no schema"))
    }

    /// Returns the schema with this name.
    ///
    /// # Errors
    ///
    /// Fails if there is none.
    pub fn by_name(name: &str) -> Result<Self, SchemaError> {
        let all = Self::load_all()?;
        let known: Vec<_> = all.iter().map(|schema| schema.name.clone()).collect();
        all.into_iter()
            .find(|schema| schema.name == name)
            .ok_or_else(|| {
                let message = format!("there is no bundled schema `{name}`");
                let hint = match nearest_name(name, known.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("the bundled schemas are {}", known.join(", ")),
                };
                Diagnostic::error(message).with_hint(hint).into()
            })
    }

    /// Compiles the schema.
    ///
    /// # Errors
    ///
    /// Cannot fail in a binary that passed its tests.
    pub fn compile(&self) -> Result<Schema, SchemaError> {
        let all = DescriptorPool::decode(DESCRIPTORS).map_err(|error| bundled_error(&error))?;
        let pool = files_of(&all, &self.envelope).map_err(|error| bundled_error(&error))?;
        let draft = SchemaDraft {
            pool: &pool,
            envelope: &self.envelope,
            topics_in_calls: self.topic_in_call,
            report: SchemaReport::default(),
        };
        draft.compile()
    }
}

/// Extracts the files of one schema from the bundled ones: the envelope's file and its
/// imports.
fn files_of(all: &DescriptorPool, envelope: &str) -> Result<DescriptorPool, DescriptorError> {
    let mut wanted = BTreeSet::new();
    let file = all.get_message_by_name(envelope).map(|it| it.parent_file());
    let mut found: Vec<_> = file.into_iter().collect();
    while let Some(file) = found.pop() {
        if wanted.insert(file.name().to_owned()) {
            found.extend(file.dependencies());
        }
    }
    let mut pool = DescriptorPool::new();
    // `all` lists each file after its imports.
    for file in all.files().filter(|file| wanted.contains(file.name())) {
        pool.decode_file_descriptor_proto(file.encode_to_vec().as_slice())?;
    }
    Ok(pool)
}

fn bundled_error(reason: &dyn fmt::Display) -> SchemaError {
    Diagnostic::error(format!("the bundled schema is broken: {reason}")).into()
}
