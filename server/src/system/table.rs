//! Small tables made of values, for system relations.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};

/// A value of a system relation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Text(Option<String>),
    /// A list of text; never there.
    NoList,
    Bool(bool),
    Small(i16),
    Int(i32),
    Big(Option<i64>),
    Bytes(Option<Vec<u8>>),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i16> for Cell {
    fn from(value: i16) -> Self {
        Self::Small(value)
    }
}

impl From<i32> for Cell {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Big(Some(value))
    }
}

/// A table of rows; `model` gives the types, also when there are no rows.
pub(super) fn table(model: &[(&str, Cell)], rows: Vec<Vec<Cell>>) -> Option<RecordBatch> {
    let columns: Vec<(Field, ArrayRef)> = model
        .iter()
        .enumerate()
        .map(|(i, (name, cell))| column(name, cell, rows.iter().map(|r| r.get(i))))
        .collect();
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()
}

fn column<'a>(name: &str, model: &Cell, cells: impl Iterator<Item = Option<&'a Cell>>) -> (Field, ArrayRef) {
    let array: ArrayRef = match model {
        Cell::Text(_) => Arc::new(
            cells
                .map(|c| match c {
                    Some(Cell::Text(t)) => t.clone(),
                    _ => None,
                })
                .collect::<StringArray>(),
        ),
        Cell::NoList => {
            let items = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
            new_null_array(&items, cells.count())
        }
        Cell::Bool(_) => Arc::new(
            cells
                .map(|c| match c {
                    Some(Cell::Bool(b)) => Some(*b),
                    _ => None,
                })
                .collect::<BooleanArray>(),
        ),
        Cell::Small(_) => Arc::new(
            cells
                .map(|c| match c {
                    Some(Cell::Small(n)) => Some(*n),
                    _ => None,
                })
                .collect::<Int16Array>(),
        ),
        Cell::Int(_) => Arc::new(
            cells
                .map(|c| match c {
                    Some(Cell::Int(n)) => Some(*n),
                    _ => None,
                })
                .collect::<Int32Array>(),
        ),
        Cell::Big(_) => Arc::new(
            cells
                .map(|c| match c {
                    Some(Cell::Big(n)) => *n,
                    _ => None,
                })
                .collect::<Int64Array>(),
        ),
        Cell::Bytes(_) => Arc::new(
            cells
                .map(|c| match c {
                    Some(Cell::Bytes(b)) => b.as_deref(),
                    _ => None,
                })
                .collect::<BinaryArray>(),
        ),
    };
    (Field::new(name, array.data_type().clone(), true), array)
}
