//! What each fuzz target does with its input, and the inputs with which it begins.

pub mod config;
pub mod conversation;
pub mod cost;
pub mod descriptor_set;
pub mod ingest;
pub mod json_frame;
pub mod proto_file;
pub mod seeds;
pub mod token;
pub mod wire;

mod schemas;
