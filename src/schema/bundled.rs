//! The schemas that the program carries in itself, and examples of their use.

use std::fmt;

use prost_reflect::DescriptorPool;
use serde::Deserialize;

use super::{
    Schema, SchemaError,
    compile::compile,
    diagnostic::{Diagnostic, Diagnostics},
};

const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bundled.binpb"));
const ABOUT: &str = include_str!(concat!(env!("OUT_DIR"), "/bundled.toml"));

/// The file `proto/bundled.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    schema: Vec<Bundled>,
}

/// What `proto/bundled.toml` says about one bundled schema.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundled {
    /// The name by which the configuration picks it.
    pub name: String,
    /// The envelope's full name.
    pub envelope: String,
    /// A topic for examples.
    pub sample_topic: String,
    /// An event that relates to it, as proto3 JSON without a single quote.
    pub sample_event: String,
    /// The sample event names no topic itself: the call that posts it has to.
    #[serde(default)]
    pub topic_in_call: bool,
}

impl Bundled {
    /// Every bundled schema, the default first.
    ///
    /// # Errors
    ///
    /// Never in a program that passed its tests.
    pub fn all() -> Result<Vec<Self>, SchemaError> {
        let about: About = toml::from_str(ABOUT).map_err(|error| broken(&error))?;
        Ok(about.schema)
    }

    /// The schema that serves where no other is configured.
    ///
    /// # Errors
    ///
    /// Never in a program that passed its tests.
    pub fn load() -> Result<Self, SchemaError> {
        Self::all()?
            .into_iter()
            .next()
            .ok_or_else(|| broken(&"proto/bundled.toml names no schema"))
    }

    /// The schema of this name.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, SchemaError> {
        let all = Self::all()?;
        let known: Vec<_> = all.iter().map(|schema| schema.name.clone()).collect();
        all.into_iter()
            .find(|schema| schema.name == name)
            .ok_or_else(|| {
                let message = format!("there is no bundled schema `{name}`");
                let hint = format!("known are {}", known.join(", "));
                Diagnostic::error(message).with_hint(hint).into()
            })
    }

    /// Compiles the schema.
    ///
    /// # Errors
    ///
    /// Never in a program that passed its tests.
    pub fn schema(&self) -> Result<Schema, SchemaError> {
        let pool = DescriptorPool::decode(DESCRIPTORS).map_err(|error| broken(&error))?;
        compile(&pool, &self.envelope, Diagnostics::default())
    }
}

fn broken(reason: &dyn fmt::Display) -> SchemaError {
    Diagnostic::error(format!("the bundled schema is broken: {reason}")).into()
}
