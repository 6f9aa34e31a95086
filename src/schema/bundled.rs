//! The schema that the program carries in itself, and what goes with it.

use prost_reflect::DescriptorPool;
use serde::Deserialize;

use super::{Schema, compile::SchemaError};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bundled.binpb"));
const ABOUT: &str = include_str!(concat!(env!("OUT_DIR"), "/bundled.toml"));

/// What `proto/bundled.toml` says of the bundled schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundled {
    /// The envelope's full name.
    pub envelope: String,
    /// A topic for examples.
    pub sample_topic: String,
    /// An event that relates to it, as proto3 JSON without a single quote.
    pub sample_event: String,
}

impl Bundled {
    /// Reads the embedded file.
    ///
    /// # Errors
    ///
    /// Never in a program that passed its tests.
    pub fn load() -> Result<Self, SchemaError> {
        toml::from_str(ABOUT).map_err(|error| SchemaError::Bundled {
            reason: error.to_string(),
        })
    }

    /// Compiles the schema.
    ///
    /// # Errors
    ///
    /// Never in a program that passed its tests.
    pub fn schema(&self) -> Result<Schema, SchemaError> {
        Schema::compile(&DescriptorPool::decode(DESCRIPTORS)?, &self.envelope)
    }
}
