//! A relation's rows as records of its topic, and back.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, Int64Array, RecordBatch,
};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use planner::{Format, KeyWindow, RecordFormat, Relation, VALUELESS};
use serde_json::value::RawValue;
use sql::Headers;

use super::builder::{Builder, Reason};
use super::cell::Cells;
use super::plain_type::{converted, plain_type};
use super::{Undecodable, delimited, headers, json, kafka};
use crate::error::{Error, Result};
use crate::ingest::{DELETED, ROW_TIME, column_times, topic_schema};

/// The layout of records: key, value, time in ms.
pub(crate) fn records_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new(ROW_TIME, DataType::Int64, true),
    ]))
}

/// The same with headers behind them, as a relation that writes headers has it.
fn records_with_headers() -> SchemaRef {
    let mut fields: Vec<_> = records_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new("headers", sql::headers_type(), true)));
    Arc::new(Schema::new(fields))
}

/// Reads and writes a relation's records.
#[derive(Debug, Clone)]
pub(crate) struct Codec {
    relation: Arc<Relation>,
    key: Side,
    value: Side,
    schema: SchemaRef,
    window: Option<KeyWindow>,
}

/// A record that is no row.
#[derive(Debug)]
pub(crate) struct BadRecord {
    /// Its position among the records.
    pub(crate) index: usize,
    pub(crate) error: Error,
    /// The bytes that are at fault.
    pub(crate) raw: Bytes,
}

/// Rows out of records, in the layout of a topic of columns.
pub(crate) struct Decoded {
    pub(crate) rows: RecordBatch,
    /// The record of each row; None: all records are rows.
    pub(crate) from: Option<Vec<usize>>,
    pub(crate) bad: Vec<BadRecord>,
}

/// The key or the value.
#[derive(Debug, Clone)]
struct Side {
    part: &'static str,
    format: Format,
    /// Columns of the relation.
    columns: Vec<usize>,
    /// JSON has an object, not the bare value of the one column.
    object: bool,
}

impl Codec {
    /// None for a relation whose topic holds columns.
    pub(crate) fn of(relation: &Arc<Relation>) -> Option<Self> {
        let RecordFormat { key, value, wrapped, window } = *relation.record_format()?;
        let values: Vec<usize> = relation.value_columns().collect();
        let is_bound = |c: &usize| window.is_some_and(|w| w.bounds.contains(c));
        let keys: Vec<usize> = relation.record_key.iter().copied().filter(|c| !is_bound(c)).collect();
        Some(Self {
            key: Side { part: "key", format: key, object: keys.len() > 1, columns: keys },
            value: Side {
                part: "value",
                format: value,
                object: wrapped || values.len() != 1,
                columns: values,
            },
            schema: topic_schema(relation),
            relation: Arc::clone(relation),
            window,
        })
    }

    /// Rows out of records.
    ///
    /// # Errors
    /// [`Error::Bug`] when the batch holds no records.
    pub(crate) fn decode(&self, records: &RecordBatch) -> Result<Decoded> {
        let n = records.num_rows();
        let [key, value, times, headers @ ..] = records.columns() else {
            return Err(Error::bug("format", "a topic of records holds something else"));
        };
        let (keys, values) = (key.as_binary::<i32>(), value.as_binary::<i32>());
        let mut columns: Vec<Option<ArrayRef>> = vec![None; self.relation.columns.len()];
        let mut bad = Bad { good: vec![true; n], records: Vec::new() };
        let unwindowed = self.window.map(|window| take_window(window, keys, &mut columns, &mut bad));
        self.key.decode(&self.relation, unwindowed.as_ref().unwrap_or(keys), &mut columns, &mut bad)?;
        self.value.decode(&self.relation, values, &mut columns, &mut bad)?;
        for (column, out) in self.relation.columns.iter().zip(&mut columns) {
            if let Some(wanted) = &column.headers {
                *out = Some(headers::column(wanted, headers.first(), n));
            }
        }
        let mut columns: Vec<ArrayRef> = columns.into_iter().flatten().collect();
        self.check_nulls(&columns, keys, values, &mut bad);
        let times = self.times(&columns, times, values, &mut bad)?;
        columns.push(Arc::new(times));
        // A table's key is removed; a stream's row is marked.
        let stream = self.relation.is_stream();
        let lacks_value = |i: usize| values.is_null(i) && (!stream || self.rows_have_values());
        columns.push(Arc::new(BooleanArray::from_iter((0..n).map(|i| Some(lacks_value(i))))));
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
        if stream && self.rows_have_values() {
            bad.records.retain(|record| values.is_valid(record.index));
        }
        if bad.good.iter().all(|good| *good) {
            return Ok(Decoded { rows, from: None, bad: Vec::new() });
        }
        bad.records.sort_by_key(|b| b.index);
        let from = (0..n).filter(|i| bad.good[*i]).collect();
        let rows = filter_record_batch(&rows, &BooleanArray::from(bad.good))?;
        Ok(Decoded { rows, from: Some(from), bad: bad.records })
    }

    /// Whether a record without a value is a row without one. In a stream of bytes it is a NULL.
    fn rows_have_values(&self) -> bool {
        matches!(self.value.format, Format::Json | Format::Delimited(_)) && !self.value.columns.is_empty()
    }

    /// A value that must be there is missing: a table's key, NOT NULL.
    fn check_nulls(&self, columns: &[ArrayRef], keys: &BinaryArray, values: &BinaryArray, bad: &mut Bad) {
        for (index, (column, array)) in self.relation.columns.iter().zip(columns).enumerate() {
            let is_key = self.relation.record_key.contains(&index);
            if !column.not_null || array.null_count() == 0 {
                continue;
            }
            for row in 0..array.len() {
                // What removes a key has no values.
                if array.is_null(row) && (is_key || values.is_valid(row)) {
                    let error = Error::NullValue {
                        column: column.name.clone(),
                        relation: self.relation.name.clone(),
                    };
                    bad.push(row, error, if is_key { keys } else { values });
                }
            }
        }
    }

    /// The time of each row: that of its record, or of the column that gives it.
    fn times(
        &self,
        columns: &[ArrayRef],
        times: &ArrayRef,
        values: &BinaryArray,
        bad: &mut Bad,
    ) -> Result<Int64Array> {
        let Some(column) = self.relation.time_column else {
            return Ok(times.as_primitive::<Int64Type>().clone());
        };
        let given = column_times(&self.relation, &columns[column])?;
        let own = times.as_primitive::<Int64Type>();
        let mut out = Vec::with_capacity(given.len());
        for row in 0..given.len() {
            if given.is_valid(row) && given.value(row) >= 0 {
                out.push(given.value(row));
                continue;
            }
            out.push(own.value(row));
            // A row that is not there has no time but its record's.
            if values.is_valid(row) {
                let reason = if given.is_valid(row) { "it is before 1970" } else { "it is null" };
                let error = Undecodable {
                    part: "value",
                    column: Some(self.relation.columns[column].name.clone()),
                    reason: format!("the time of the row must be there: {reason}"),
                    binary: false,
                };
                bad.push(row, Error::Undecodable(error), values);
            }
        }
        Ok(out.into())
    }

    /// Records of rows that have a topic's layout.
    ///
    /// # Errors
    /// [`Error::Bug`] when the rows are not the relation's.
    pub(crate) fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let mark = if self.relation.is_stream() { VALUELESS } else { DELETED };
        let lacks = rows.schema().index_of(mark).ok().map(|at| rows.column(at).as_boolean());
        let key = self.key.encode(&self.relation, rows, |_| false)?;
        let value = self.value.encode(&self.relation, rows, |row| {
            lacks.is_some_and(|lacks| lacks.is_valid(row) && lacks.value(row))
        })?;
        let time =
            rows.column_by_name(ROW_TIME).ok_or_else(|| Error::bug("format", "rows without a time"))?;
        let key = match self.window {
            Some(window) => add_window(window, &key, rows),
            None => key,
        };
        let mut columns: Vec<ArrayRef> = vec![Arc::new(key), Arc::new(value), Arc::clone(time)];
        let all = self.relation.columns.iter().position(|column| column.headers == Some(Headers::All));
        let schema = match all {
            Some(at) => {
                columns.push(Arc::clone(rows.column(at)));
                records_with_headers()
            }
            None => records_schema(),
        };
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

fn utf8(bytes: &[u8]) -> std::result::Result<&str, Reason> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

/// Bytes of one bound of a window.
const BOUND: usize = 8;

/// Keys without their windows, whose bounds become columns.
fn take_window(
    window: KeyWindow,
    keys: &BinaryArray,
    columns: &mut [Option<ArrayRef>],
    bad: &mut Bad,
) -> BinaryArray {
    let len = if window.size_ms.is_some() { BOUND } else { 2 * BOUND };
    let mut bounds: [Vec<Option<i64>>; 2] = [Vec::new(), Vec::new()];
    let mut bare = BinaryBuilder::new();
    for (row, key) in keys.iter().enumerate() {
        let parts = key.and_then(|key| key.split_at_checked(key.len().checked_sub(len)?));
        let bound = |bytes: &[u8]| bytes.first_chunk().map(|b| i64::from_be_bytes(*b));
        let (start, end) = match (parts, window.size_ms) {
            (Some((_, tail)), Some(size)) => {
                let start = bound(tail);
                (start, start.map(|start| start.saturating_add(size)))
            }
            (Some((_, tail)), None) => (bound(&tail[BOUND..]), bound(tail)),
            (None, _) => (None, None),
        };
        if key.is_some() && parts.is_none() {
            let error = Undecodable {
                part: "key",
                column: None,
                reason: "there is no window behind it".into(),
                binary: true,
            };
            bad.push(row, Error::Undecodable(error), keys);
        }
        bounds[0].push(start);
        bounds[1].push(end);
        bare.append_option(parts.map(|(key, _)| key));
    }
    for (at, bounds) in window.bounds.iter().zip(bounds) {
        columns[*at] = Some(Arc::new(Int64Array::from(bounds)));
    }
    bare.finish()
}

/// Keys with the windows of their rows behind them.
fn add_window(window: KeyWindow, keys: &BinaryArray, rows: &RecordBatch) -> BinaryArray {
    let [start, end] = window.bounds.map(|at| rows.column(at).as_primitive::<Int64Type>());
    let mut out = BinaryBuilder::new();
    let mut bytes = Vec::new();
    for (row, key) in keys.iter().enumerate() {
        let Some(key) = key else {
            out.append_null();
            continue;
        };
        bytes.clear();
        bytes.extend_from_slice(key);
        if window.size_ms.is_none() {
            bytes.extend_from_slice(&end.value(row).to_be_bytes());
        }
        bytes.extend_from_slice(&start.value(row).to_be_bytes());
        out.append_value(&bytes);
    }
    out.finish()
}

/// Which records are no rows.
struct Bad {
    good: Vec<bool>,
    records: Vec<BadRecord>,
}

impl Bad {
    /// Notes the first fault of a record.
    fn push(&mut self, index: usize, error: Error, bytes: &BinaryArray) {
        if std::mem::replace(&mut self.good[index], false) {
            let raw =
                if bytes.is_null(index) { Bytes::new() } else { Bytes::copy_from_slice(bytes.value(index)) };
            self.records.push(BadRecord { index, error, raw });
        }
    }
}

impl Side {
    fn decode(
        &self,
        relation: &Relation,
        bytes: &BinaryArray,
        out: &mut [Option<ArrayRef>],
        bad: &mut Bad,
    ) -> Result<()> {
        let column = |c: &usize| &relation.columns[*c];
        let mut builders =
            self.columns.iter().map(|c| Builder::of(column(c), bytes.len())).collect::<Result<Vec<_>>>()?;
        let names = json::Names::new(self.columns.iter().map(|c| column(c).name.as_str()));
        let mut fields: Vec<Option<&RawValue>> = Vec::new();
        for row in 0..bytes.len() {
            if bytes.is_null(row) {
                builders.iter_mut().for_each(Builder::append_null);
                continue;
            }
            let appended = self.append(bytes.value(row), &names, &mut fields, &mut builders);
            if let Err((at, reason)) = appended {
                let error = Undecodable {
                    part: self.part,
                    column: at.map(|at| column(&self.columns[at]).name.clone()),
                    reason,
                    binary: self.format == Format::Kafka,
                };
                bad.push(row, Error::Undecodable(error), bytes);
            }
        }
        for (at, builder) in self.columns.iter().zip(builders) {
            out[*at] = Some(converted(&builder.finish()?, &column(at).data_type)?);
        }
        Ok(())
    }

    /// One entry more for each column. An error names the column by its position here.
    fn append<'b>(
        &self,
        bytes: &'b [u8],
        names: &json::Names,
        fields: &mut Vec<Option<&'b RawValue>>,
        builders: &mut [Builder],
    ) -> std::result::Result<(), (Option<usize>, Reason)> {
        let nothing = |builders: &mut [Builder]| builders.iter_mut().for_each(Builder::append_null);
        match self.format {
            Format::None => {
                nothing(builders);
                Ok(())
            }
            Format::Kafka => match builders {
                [one] => kafka::append(one, bytes).map_err(|reason| (Some(0), reason)),
                _ => Ok(()),
            },
            Format::Delimited(delimiter) => {
                delimited::append(&mut builders.iter_mut().collect::<Vec<_>>(), bytes, delimiter)
            }
            Format::Json if json::is_null(bytes) => {
                nothing(builders);
                Ok(())
            }
            Format::Json if self.object => {
                let read = utf8(bytes).and_then(|text| json::object(text, names, fields));
                if let Err(reason) = read {
                    nothing(builders);
                    return Err((None, reason));
                }
                let mut first_error = Ok(());
                for (at, (builder, field)) in builders.iter_mut().zip(fields.iter()).enumerate() {
                    let appended = match field {
                        Some(raw) => json::append(builder, raw.get()),
                        None => {
                            builder.append_null();
                            Ok(())
                        }
                    };
                    first_error = first_error.and(appended.map_err(|reason| (Some(at), reason)));
                }
                first_error
            }
            Format::Json => {
                let [one] = builders else { return Ok(()) };
                let appended = match utf8(bytes).and_then(json::value) {
                    Ok(raw) => json::append(one, raw.get()),
                    Err(reason) => {
                        one.append_null();
                        Err(reason)
                    }
                };
                appended.map_err(|reason| (Some(0), reason))
            }
        }
    }

    fn encode(
        &self,
        relation: &Relation,
        rows: &RecordBatch,
        is_null: impl Fn(usize) -> bool,
    ) -> Result<BinaryArray> {
        let n = rows.num_rows();
        let mut out = BinaryBuilder::with_capacity(n, n * 32);
        let plain = |c: &usize| converted(rows.column(*c), &plain_type(rows.column(*c).data_type()));
        let columns = self.columns.iter().map(plain).collect::<Result<Vec<_>>>()?;
        let of_relation = self.columns.iter().map(|c| &relation.columns[*c]);
        let cells = of_relation
            .zip(&columns)
            .map(|(column, array)| Ok((json::quoted(&column.name), Cells::of(column, array.as_ref())?)))
            .collect::<Result<Vec<_>>>()?;
        let mut bytes = Vec::new();
        for row in 0..n {
            bytes.clear();
            if is_null(row) || !self.write(&cells, row, &mut bytes) {
                out.append_null();
            } else {
                out.append_value(&bytes);
            }
        }
        Ok(out.finish())
    }

    /// Writes one; false when it is no bytes at all.
    fn write(&self, cells: &[(Vec<u8>, Cells<'_>)], row: usize, out: &mut Vec<u8>) -> bool {
        match (self.format, cells) {
            (Format::None, _) | (Format::Kafka, []) => false,
            (Format::Kafka, [(_, one), ..]) => {
                let there = !one.is_null(row);
                if there {
                    kafka::write(one, row, out);
                }
                there
            }
            (Format::Delimited(delimiter), _) => {
                // A key of no value is no key.
                let there = self.part == "value" || cells.iter().any(|(_, c)| !c.is_null(row));
                if there {
                    delimited::write(cells, row, delimiter, out);
                }
                there
            }
            (Format::Json, [(_, one)]) if !self.object => {
                let there = !one.is_null(row);
                if there {
                    json::write(one, row, out);
                }
                there
            }
            (Format::Json, _) => {
                json::write_object(cells, row, out);
                true
            }
        }
    }
}
