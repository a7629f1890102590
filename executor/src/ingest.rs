//! Rows on their way into the log: checked, timed, in the layout their topic keeps.
//!
//! A stream's topic keeps its columns and the record time. A table's keeps, besides, whether the
//! row removes its key, and the row's number where the table has no key. Next: `engine::commit`.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use planner::{Relation, TimePattern, VALUELESS};

use crate::error::{Error, Result};
use crate::format::{Codec, split};
use crate::window::to_ms;

/// Name of the record time in a topic's rows.
pub(crate) const ROW_TIME: &str = "rowtime";
/// Name of the mark that a row removes its key.
pub(crate) const DELETED: &str = "\u{1}deleted";
/// Name of the number of a row in a table without a key.
pub(crate) const ROW_ID: &str = "\u{1}rowid";

/// Rows for one relation, as its topic has them.
#[derive(Debug, Clone)]
pub struct Write {
    pub(crate) relation: Arc<Relation>,
    /// By partition; None where any will do.
    pub(crate) parts: Vec<(Option<u32>, RecordBatch)>,
    rows: usize,
    /// It removes rows and brings none.
    deletes: bool,
}

/// The layout of a base relation's topic; where it holds records, of what they are decoded to.
pub(crate) fn topic_schema(relation: &Relation) -> SchemaRef {
    let mut fields: Vec<Field> =
        relation.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), true)).collect();
    fields.push(Field::new(ROW_TIME, DataType::Int64, true));
    if !relation.is_stream() {
        fields.push(Field::new(DELETED, DataType::Boolean, true));
    }
    if relation.marks_valueless() {
        fields.push(Field::new(VALUELESS, DataType::Boolean, true));
    }
    if relation.has_row_id() {
        fields.push(Field::new(ROW_ID, DataType::Int64, true));
    }
    Arc::new(Schema::new(fields))
}

/// The layout of a base table's rows in memory: its topic's, without the mark.
pub(crate) fn table_schema(relation: &Relation) -> SchemaRef {
    let topic = topic_schema(relation);
    Arc::new(Schema::new(topic.fields().iter().filter(|f| f.name() != DELETED).cloned().collect::<Vec<_>>()))
}

/// Columns that name a row of a base table in memory.
pub(crate) fn table_key(relation: &Relation) -> Vec<usize> {
    if relation.has_row_id() { vec![relation.columns.len() + 1] } else { relation.key.clone() }
}

impl Write {
    /// New rows. `rows` has all columns of the relation; `row_time` gives record times in ms where
    /// the statement names them, else they come from the time column, else they are `now_ms`.
    ///
    /// # Errors
    /// [`Error::NullValue`], [`Error::NotWritable`].
    pub fn insert(
        relation: &Arc<Relation>,
        rows: &RecordBatch,
        row_time: Option<ArrayRef>,
        now_ms: i64,
    ) -> Result<Self> {
        if !relation.is_base() {
            let reason = "its rows come from its query";
            return Err(Error::NotWritable {
                action: "insert into",
                relation: relation.name.clone(),
                reason,
            });
        }
        check_nulls(relation, rows)?;
        let times = times(relation, rows, row_time, now_ms)?;
        Self::build(relation, rows.columns().to_vec(), times, false, None)
    }

    /// New values for rows that are there: `rows` in memory layout, as read from the table.
    ///
    /// # Errors
    /// [`Error::NullValue`].
    pub fn replace(relation: &Arc<Relation>, rows: &RecordBatch, now_ms: i64) -> Result<Self> {
        check_nulls(relation, rows)?;
        let times = times(relation, rows, None, now_ms)?;
        let width = relation.columns.len();
        let ids = relation.has_row_id().then(|| Arc::clone(rows.column(width + 1)));
        Self::build(relation, rows.columns()[..width].to_vec(), times, false, ids)
    }

    /// The layout in which a base table's rows are read to be replaced or deleted: its columns, the
    /// record time, the row's number where the table has no key.
    pub fn memory_schema(relation: &Relation) -> SchemaRef {
        table_schema(relation)
    }

    /// The columns of that layout that name a row.
    pub fn memory_key(relation: &Relation) -> Vec<usize> {
        if relation.has_row_id() { vec![relation.columns.len() + 1] } else { relation.key.clone() }
    }

    /// Removal of rows that are there: `rows` in memory layout.
    ///
    /// # Errors
    /// Only a bug's.
    pub fn delete(relation: &Arc<Relation>, rows: &RecordBatch, now_ms: i64) -> Result<Self> {
        let width = relation.columns.len();
        let ids = relation.has_row_id().then(|| Arc::clone(rows.column(width + 1)));
        // Only the key says anything; the rest need not be kept.
        let columns = (0..width)
            .map(|i| {
                let column = rows.column(i);
                if relation.key.contains(&i) {
                    Arc::clone(column)
                } else {
                    new_null_array(column.data_type(), rows.num_rows())
                }
            })
            .collect();
        Self::build(relation, columns, Int64Array::from_value(now_ms, rows.num_rows()), true, ids)
    }

    fn build(
        relation: &Arc<Relation>,
        mut columns: Vec<ArrayRef>,
        times: Int64Array,
        deleted: bool,
        ids: Option<ArrayRef>,
    ) -> Result<Self> {
        let n = times.len();
        columns.push(Arc::new(times));
        if !relation.is_stream() || relation.marks_valueless() {
            columns.push(Arc::new(BooleanArray::from(vec![deleted; n])));
        }
        if relation.has_row_id() {
            columns.push(ids.unwrap_or_else(|| new_null_array(&DataType::Int64, n)));
        }
        let rows = RecordBatch::try_new(topic_schema(relation), columns)?;
        let parts = match Codec::of(relation) {
            None => vec![(None, rows)],
            Some(codec) => {
                let split = split(codec.encode(&rows)?, relation.partitions)?;
                split.into_iter().map(|(partition, records)| (Some(partition), records)).collect()
            }
        };
        Ok(Self { relation: Arc::clone(relation), parts, rows: n, deletes: deleted })
    }

    /// Where the rows go.
    pub fn relation_id(&self) -> planner::RelationId {
        self.relation.id
    }

    /// Whether they go to a stream.
    pub fn is_stream(&self) -> bool {
        self.relation.is_stream()
    }

    /// Whether rows may come to a table by it.
    pub(crate) fn adds_to_table(&self) -> bool {
        !self.deletes && !self.is_stream()
    }

    pub(crate) fn relation_name(&self) -> &str {
        &self.relation.name
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.rows
    }

    /// Memory the rows take.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|(_, rows)| rows.get_array_memory_size()).sum()
    }
}

/// Numbers the rows of a table without a key that have none yet, from `first` on.
pub(crate) fn numbered(rows: RecordBatch, first: i64) -> Result<RecordBatch> {
    let Some((index, _)) = rows.schema().column_with_name(ROW_ID) else { return Ok(rows) };
    if rows.column(index).null_count() == 0 {
        return Ok(rows);
    }
    let last = first + i64::try_from(rows.num_rows()).unwrap_or(i64::MAX);
    let mut columns = rows.columns().to_vec();
    columns[index] = Arc::new(Int64Array::from_iter_values(first..last));
    Ok(RecordBatch::try_new(rows.schema(), columns)?)
}

fn check_nulls(relation: &Relation, rows: &RecordBatch) -> Result<()> {
    for (column, array) in relation.columns.iter().zip(rows.columns()) {
        if column.not_null && array.null_count() > 0 {
            return Err(Error::NullValue { column: column.name.clone(), relation: relation.name.clone() });
        }
    }
    Ok(())
}

/// The times of a relation's time column, ms since 1970; NULL where a text is none.
///
/// # Errors
/// Only a bug's.
pub(crate) fn column_times(relation: &Relation, column: &ArrayRef) -> Result<Int64Array> {
    let Some(format) = &relation.time_format else { return to_ms(column) };
    let texts = column.as_string_opt::<i32>().ok_or_else(|| Error::bug("time column", "it is no text"))?;
    let pattern = TimePattern::parse(format).map_err(|reason| Error::bug("time column", reason))?;
    Ok(texts.iter().map(|text| pattern.read_ms(text?)).collect())
}

fn times(
    relation: &Relation,
    rows: &RecordBatch,
    given: Option<ArrayRef>,
    now_ms: i64,
) -> Result<Int64Array> {
    let times = match (given, relation.time_column) {
        (Some(given), _) => Int64Array::from(given.to_data()),
        (None, Some(column)) => column_times(relation, rows.column(column))?,
        (None, None) => return Ok(Int64Array::from_value(now_ms, rows.num_rows())),
    };
    if times.null_count() == 0 {
        return Ok(times);
    }
    Ok(times.iter().map(|t| t.unwrap_or(now_ms)).collect())
}
