//! Arrow values as PostgreSQL writes them, in text and in binary.
//!
//! A `DataRow` is written straight into the connection's buffer, column by column.
//! Source: PostgreSQL, "Frontend/Backend Protocol"; the send functions of its types.

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, FieldRef, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNanoType, SchemaRef, Time64MicrosecondType, TimestampMicrosecondType,
    UInt32Type,
};

use super::WireError;
use super::types::{JSONB, POSTGRES_EPOCH_DAYS, POSTGRES_EPOCH_MICROS, column_type, is_vector, pg_type};

/// In front of each jsonb in binary.
pub(super) const JSONB_VERSION: u8 = 1;

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As a person reads it.
    Text,
    /// As PostgreSQL sends it in binary.
    Binary,
}

/// Writes rows of one layout.
#[derive(Debug, Clone)]
pub struct RowEncoder {
    columns: Vec<(Format, Form)>,
}

/// What is particular about a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// In binary its version comes first.
    Jsonb,
    /// In text it is a list without braces and commas.
    Vector,
}

impl RowEncoder {
    /// For rows of a layout, with one format for each column.
    pub fn new(schema: &SchemaRef, formats: &[Format]) -> Self {
        let form = |field: &FieldRef| match column_type(field).oid {
            JSONB => Form::Jsonb,
            _ if is_vector(field) => Form::Vector,
            _ => Form::Plain,
        };
        Self { columns: formats.iter().copied().zip(schema.fields().iter().map(form)).collect() }
    }

    /// For rows of a layout that go out in binary.
    pub fn binary(schema: &SchemaRef) -> Self {
        Self::new(schema, &vec![Format::Binary; schema.fields().len()])
    }

    /// The columns of a batch in the types they are written from.
    ///
    /// # Errors
    /// A value that no wire type holds.
    pub fn prepare(batch: &RecordBatch) -> Result<Vec<ArrayRef>, WireError> {
        Ok(batch.columns().iter().map(planner::canonical).collect::<Result<_, _>>()?)
    }

    /// Appends one row as a `DataRow` message.
    pub fn data_row(&self, columns: &[ArrayRef], row: usize, out: &mut BytesMut) {
        out.put_u8(b'D');
        let start = out.len();
        out.put_i32(0);
        out.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
        self.values(columns, row, out);
        let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Appends one row as a tuple of COPY.
    pub fn copy_tuple(&self, columns: &[ArrayRef], row: usize, out: &mut BytesMut) {
        out.put_i16(i16::try_from(columns.len()).unwrap_or(i16::MAX));
        self.values(columns, row, out);
    }

    fn values(&self, columns: &[ArrayRef], row: usize, out: &mut BytesMut) {
        for (column, (format, form)) in columns.iter().zip(&self.columns) {
            match (form, format) {
                (Form::Jsonb, Format::Binary) if column.is_valid(row) => counted(out, |out| {
                    out.put_u8(JSONB_VERSION);
                    text(column, row, out);
                }),
                (Form::Vector, Format::Text) if column.is_valid(row) => {
                    counted(out, |out| vector_text(column, row, out));
                }
                _ => value(column, row, *format, out),
            }
        }
    }
}

/// The wire types of a layout.
pub(crate) fn columns(schema: &SchemaRef) -> Vec<super::PgType> {
    schema.fields().iter().map(|f| column_type(f)).collect()
}

/// Appends the text of a value that is not null.
pub(crate) fn text(column: &ArrayRef, row: usize, out: &mut BytesMut) {
    // Writing to a buffer in memory cannot fail.
    let _ = planner::write_value(column, row, out);
}

/// Appends the text of a vector: its elements with blanks between them.
fn vector_text(column: &ArrayRef, row: usize, out: &mut BytesMut) {
    let mut list = BytesMut::new();
    text(column, row, &mut list);
    let elements = list.iter().filter(|byte| !matches!(byte, b'{' | b'}'));
    out.extend(elements.map(|byte| if *byte == b',' { b' ' } else { *byte }));
}

fn value(column: &ArrayRef, row: usize, format: Format, out: &mut BytesMut) {
    if column.is_null(row) {
        out.put_i32(-1);
        return;
    }
    counted(out, |out| match format {
        Format::Text => text(column, row, out),
        Format::Binary => binary(column, row, out),
    });
}

/// Appends what `write` appends, behind its length.
fn counted(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = i32::try_from(out.len() - start - 4).unwrap_or(i32::MAX);
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

fn binary(column: &ArrayRef, row: usize, out: &mut BytesMut) {
    match column.data_type() {
        DataType::Boolean => out.put_u8(u8::from(column.as_boolean().value(row))),
        DataType::Int16 => out.put_i16(column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => out.put_i32(column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => out.put_i64(column.as_primitive::<Int64Type>().value(row)),
        DataType::UInt32 => out.put_u32(column.as_primitive::<UInt32Type>().value(row)),
        DataType::Float32 => out.put_f32(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => out.put_f64(column.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(_, scale) => {
            numeric(column.as_primitive::<Decimal128Type>().value(row), *scale, out)
        }
        DataType::Binary => out.put_slice(column.as_binary::<i32>().value(row)),
        uuid if *uuid == sql::UUID => out.put_slice(column.as_fixed_size_binary().value(row)),
        DataType::Date32 => out.put_i32(column.as_primitive::<Date32Type>().value(row) - POSTGRES_EPOCH_DAYS),
        DataType::Time64(_) => out.put_i64(column.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(..) => {
            out.put_i64(column.as_primitive::<TimestampMicrosecondType>().value(row) - POSTGRES_EPOCH_MICROS)
        }
        DataType::Interval(_) => {
            let v = column.as_primitive::<IntervalMonthDayNanoType>().value(row);
            out.put_i64(v.nanoseconds / 1000);
            out.put_i32(v.days);
            out.put_i32(v.months);
        }
        DataType::List(field) => {
            let items = column.as_list::<i32>().value(row);
            list_binary(&items, pg_type(field.data_type()).oid, out);
        }
        _ => text(column, row, out),
    }
}

fn list_binary(items: &ArrayRef, element: u32, out: &mut BytesMut) {
    let items = planner::canonical(items).unwrap_or_else(|_| make_array(items.to_data()));
    out.put_i32(i32::from(!items.is_empty()));
    out.put_i32(i32::from(items.null_count() > 0));
    out.put_u32(element);
    if items.is_empty() {
        return;
    }
    out.put_i32(i32::try_from(items.len()).unwrap_or(i32::MAX));
    out.put_i32(1);
    for row in 0..items.len() {
        value(&items, row, Format::Binary, out);
    }
}

/// PostgreSQL's numeric: base-10000 digits, weight of the first, sign, digits after the point.
fn numeric(value: i128, scale: i8, out: &mut BytesMut) {
    let scale = u32::try_from(scale).unwrap_or(0);
    // Pad so that the decimal point falls between two base-10000 digits.
    let pad = (4 - scale % 4) % 4;
    let mut digits = Vec::new();
    let mut carry = u128::from(10u32).pow(pad);
    let (mut high, low) = (value.unsigned_abs() / 10_000, value.unsigned_abs() % 10_000);
    // value × 10^pad, digit by digit, so that 38 digits do not overflow.
    let mut rest = low * carry;
    digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
    carry = rest / 10_000;
    while high > 0 || carry > 0 {
        rest = (high % 10_000) * u128::from(10u32).pow(pad) + carry;
        high /= 10_000;
        digits.push(u16::try_from(rest % 10_000).unwrap_or(0));
        carry = rest / 10_000;
    }
    let fraction = scale.div_ceil(4) as usize;
    let mut weight = i16::try_from(digits.len()).unwrap_or(0) - i16::try_from(fraction).unwrap_or(0) - 1;
    digits.reverse();
    while digits.first() == Some(&0) {
        digits.remove(0);
        weight -= 1;
    }
    while digits.last() == Some(&0) {
        digits.pop();
    }
    if digits.is_empty() {
        weight = 0;
    }
    out.put_i16(i16::try_from(digits.len()).unwrap_or(0));
    out.put_i16(weight);
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(i16::try_from(scale).unwrap_or(0));
    for digit in digits {
        out.put_u16(digit);
    }
}
