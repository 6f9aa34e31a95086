//! The functions of the fuzz targets, and their initial inputs.

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
