//! KAFKA: one value as Kafka's own serializers have it, big-endian or as it is.

use super::builder::{Builder, Reason};
use super::cell::Cells;

/// Appends a value.
///
/// # Errors
/// A length that the type does not have, text that is not UTF-8.
pub(super) fn append(column: &mut Builder, bytes: &[u8]) -> Result<(), Reason> {
    let wrong = |wanted: usize| format!("{} bytes, not {wanted}", bytes.len());
    match column {
        Builder::Int32(b) => {
            let value = bytes.try_into().map(i32::from_be_bytes);
            b.append_option(value.ok());
            value.map(|_| ()).map_err(|_| wrong(4))
        }
        Builder::Int64(b) => {
            let value = bytes.try_into().map(i64::from_be_bytes);
            b.append_option(value.ok());
            value.map(|_| ()).map_err(|_| wrong(8))
        }
        Builder::Float64(b) => {
            let value = bytes.try_into().map(f64::from_be_bytes);
            b.append_option(value.ok());
            value.map(|_| ()).map_err(|_| wrong(8))
        }
        Builder::Bytes(b) => {
            b.append_value(bytes);
            Ok(())
        }
        Builder::Text(b) => {
            let value = std::str::from_utf8(bytes);
            b.append_option(value.ok());
            value.map(|_| ()).map_err(|e| e.to_string())
        }
        // The planner refuses other types.
        other => {
            other.append_null();
            Err("a type that KAFKA has not".into())
        }
    }
}

/// Writes a value that is not NULL.
pub(super) fn write(cells: &Cells<'_>, row: usize, out: &mut Vec<u8>) {
    match cells {
        Cells::Int32(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
        Cells::Int64(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
        Cells::Float64(a) => out.extend_from_slice(&a.value(row).to_be_bytes()),
        Cells::Bytes(a) => out.extend_from_slice(a.value(row)),
        _ => cells.write_text(row, out),
    }
}
