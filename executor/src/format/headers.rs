//! Headers of records as columns.
//!
//! Source: ksqlDB, CREATE STREAM, HEADERS: a record without headers has an empty array of them; of several with one key the
//! last counts.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, ListArray, new_empty_array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::DataType;
use sql::Headers;

/// The column of `rows` records whose headers are `all`; None where the topic has none.
pub(super) fn column(wanted: &Headers, all: Option<&ArrayRef>, rows: usize) -> ArrayRef {
    let all = all.and_then(|all| all.as_list_opt::<i32>());
    match wanted {
        Headers::All => lists(all, rows),
        Headers::Of(key) => values(key, all, rows),
    }
}

fn lists(all: Option<&ListArray>, rows: usize) -> ArrayRef {
    let lengths = match all {
        Some(all) if all.null_count() == 0 => return Arc::new(all.clone()),
        Some(all) => all.iter().map(|list| list.map_or(0, |list| list.len())).collect(),
        None => vec![0; rows],
    };
    let listed = all.map(|all| all.iter().flatten().collect::<Vec<_>>()).unwrap_or_default();
    let listed: Vec<&dyn Array> = listed.iter().map(AsRef::as_ref).collect();
    let DataType::List(field) = sql::headers_type() else { unreachable!("headers are a list") };
    // Lists of one type: nothing keeps them from being joined.
    let values =
        datafusion::arrow::compute::concat(&listed).unwrap_or_else(|_| new_empty_array(field.data_type()));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths), values, None))
}

fn values(key: &str, all: Option<&ListArray>, rows: usize) -> ArrayRef {
    let mut out = BinaryBuilder::new();
    for row in 0..rows {
        let list = all.filter(|all| all.is_valid(row)).map(|all| all.value(row));
        let last = list.as_ref().and_then(|list| {
            let pairs = list.as_struct_opt()?;
            let (keys, values) =
                (pairs.column(0).as_string_opt::<i32>()?, pairs.column(1).as_binary_opt::<i32>()?);
            let at = (0..keys.len()).rev().find(|at| keys.is_valid(*at) && keys.value(*at) == key)?;
            values.is_valid(at).then(|| values.value(at))
        });
        out.append_option(last);
    }
    Arc::new(out.finish())
}
