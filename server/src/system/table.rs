//! Small tables made of values, for system relations.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int16Array, Int16Builder, Int32Array, Int64Array,
    Int64Builder, ListBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
    UInt32Array,
};
use datafusion::arrow::datatypes::{Field, Schema};

use crate::pg::as_vector;

/// A value of a system relation.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    None,
    Text(String),
    Bool(bool),
    /// An integer of any width; a time in microseconds since 1970.
    Number(i64),
    Bytes(Vec<u8>),
    Numbers(Vec<i64>),
    Texts(Vec<String>),
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Bool,
    Small,
    Int,
    Big,
    Oid,
    Double,
    Time,
    Bytes,
    TextList,
    SmallList,
    BigList,
    /// int2vector and oidvector: lists that are written in another way.
    SmallVector,
    BigVector,
}

/// Values by the name of their column.
pub(super) type Row = Vec<(&'static str, Cell)>;

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Number(value)
    }
}

impl From<i32> for Cell {
    fn from(value: i32) -> Self {
        Self::Number(value.into())
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::None, Self::Number)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// A table of rows. A column that is `required` has false, zero or the empty text where a row says nothing.
pub(super) fn table(model: &[(&str, Kind, bool)], rows: Vec<Row>) -> Option<RecordBatch> {
    let columns = model.iter().map(|(name, kind, required)| {
        let cells: Vec<&Cell> = rows.iter().map(|row| cell(row, name)).collect();
        let array = column(*kind, &cells, *required);
        let field = Field::new(*name, array.data_type().clone(), true);
        let is_vector = matches!(kind, Kind::SmallVector | Kind::BigVector);
        (if is_vector { as_vector(field) } else { field }, array)
    });
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()
}

fn cell<'a>(row: &'a Row, name: &str) -> &'a Cell {
    row.iter().find(|(column, _)| *column == name).map_or(&Cell::None, |(_, cell)| cell)
}

fn column(kind: Kind, cells: &[&Cell], required: bool) -> ArrayRef {
    let default = required.then_some(0);
    let number = |cell: &&Cell| match cell {
        Cell::Number(n) => Some(*n),
        _ => default,
    };
    let numbers = cells.iter().map(number);
    match kind {
        Kind::Text => {
            let text = |cell: &'_ &Cell| match cell {
                Cell::Text(text) => Some(text.clone()),
                Cell::Number(n) => Some(n.to_string()),
                _ => required.then(String::new),
            };
            Arc::new(cells.iter().map(text).collect::<StringArray>())
        }
        Kind::Bool => {
            let flag = |cell: &&Cell| match cell {
                Cell::Bool(flag) => Some(*flag),
                _ => required.then_some(false),
            };
            Arc::new(cells.iter().map(flag).collect::<BooleanArray>())
        }
        Kind::Small => Arc::new(numbers.map(|n| i16::try_from(n?).ok()).collect::<Int16Array>()),
        Kind::Int => Arc::new(numbers.map(|n| i32::try_from(n?).ok()).collect::<Int32Array>()),
        Kind::Big => Arc::new(numbers.collect::<Int64Array>()),
        Kind::Oid => Arc::new(numbers.map(|n| u32::try_from(n?).ok()).collect::<UInt32Array>()),
        #[allow(clippy::cast_precision_loss, reason = "counts and estimates")]
        Kind::Double => Arc::new(numbers.map(|n| n.map(|n| n as f64)).collect::<Float64Array>()),
        Kind::Time => Arc::new(numbers.collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
        Kind::Bytes => {
            let bytes = |cell: &'_ &Cell| match cell {
                Cell::Bytes(bytes) => Some(bytes.clone()),
                _ => None,
            };
            Arc::new(cells.iter().map(bytes).collect::<BinaryArray>())
        }
        Kind::TextList => {
            let mut list = ListBuilder::new(StringBuilder::new());
            for cell in cells {
                if let Cell::Texts(texts) = cell {
                    texts.iter().for_each(|text| list.values().append_value(text));
                }
                list.append(*cell != &Cell::None || required);
            }
            Arc::new(list.finish())
        }
        Kind::SmallList | Kind::SmallVector => {
            let mut list = ListBuilder::new(Int16Builder::new());
            for cell in cells {
                if let Cell::Numbers(numbers) = cell {
                    numbers.iter().for_each(|n| list.values().append_option(i16::try_from(*n).ok()));
                }
                list.append(matches!(cell, Cell::Numbers(_)) || required);
            }
            Arc::new(list.finish())
        }
        Kind::BigList | Kind::BigVector => {
            let mut list = ListBuilder::new(Int64Builder::new());
            for cell in cells {
                if let Cell::Numbers(numbers) = cell {
                    numbers.iter().for_each(|n| list.values().append_value(*n));
                }
                list.append(matches!(cell, Cell::Numbers(_)) || required);
            }
            Arc::new(list.finish())
        }
    }
}
