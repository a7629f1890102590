//! What the log's bytes mean: Arrow streams of typed columns, and records in formats that others read.
//!
//! A topic of records keeps them as they came: time, key, value. Each relation on it reads them with
//! its own [`Codec`], so one topic can be read in several ways. Invariant: a record that does not
//! decode is left out and reported, whatever its bytes are; it never stops the others.

mod arrow_stream;
mod builder;
mod cell;
mod codec;
mod delimited;
mod headers;
mod json;
mod kafka;
mod partitioner;
mod plain_type;

pub(crate) use arrow_stream::ARROW_STREAM;
pub use arrow_stream::{decode_batches, encode_batches};
pub(crate) use codec::{BadRecord, Codec};
pub(crate) use partitioner::split;

use std::fmt;

/// Why bytes are no value of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// Of a key or of a value.
    pub part: &'static str,
    /// The column, where it is one column's fault.
    pub column: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// The bytes are binary, not text.
    pub binary: bool,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "the {} has no \"{column}\": {}", self.part, self.reason),
            None => write!(f, "the {} does not decode: {}", self.part, self.reason),
        }
    }
}
