//! Stream-table join: each row of the stream meets the table as it is, and the pair stays.
//!
//! Within one epoch the table's changes come first, whatever their times: a row never misses the
//! table row that was written before it (docs/decisions/0005-stream-table-join.md).
//! Source: ksqlDB, "Join Event Streams with ksqlDB", stream-table joins.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::SchemaRef;

use super::join::{JoinSpec, filtered, glue};
use super::join_side::JoinSide;
use super::keyed_rows::{BatchKeys, KeyedRows, RowId};
use crate::change::ChangeBatch;
use crate::error::Result;
use crate::expression::{Expression, resilient};
use crate::layout::{batch_of, take_rows};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};
use crate::table::TableStore;

pub(crate) struct Lookup {
    stream: KeyedRows,
    table: JoinSide,
    filter: Option<Expression>,
    outer: bool,
    schema: SchemaRef,
}

impl Lookup {
    pub(crate) fn try_new(spec: &JoinSpec, outer: bool) -> Result<Self> {
        Ok(Self {
            stream: spec.side(0)?,
            table: JoinSide::new(spec.side(1)?),
            filter: spec.filter.clone(),
            outer,
            schema: Arc::clone(&spec.schema),
        })
    }

    /// Every row of the stream with the rows that the table has for it.
    fn meet(&self, batch: &ChangeBatch, keys: &BatchKeys, rejects: &mut StepRejects) -> Result<Changes> {
        let (mut rows, mut ids): (Vec<u32>, Vec<RowId>) = (Vec::new(), Vec::new());
        let table = self.table.reader();
        for row in 0..batch.len() {
            let Some((hash, key)) = keys.key(row) else { continue };
            table.each(hash, key, |id, weight| {
                for _ in 0..weight {
                    rows.push(u32::try_from(row).unwrap_or(u32::MAX));
                    ids.push(id);
                }
                Ok(())
            })?;
        }
        let own = take_rows(&batch.rows, &UInt32Array::from(rows.clone()))?;
        let joined = glue(own.columns(), &table.columns(&ids)?, true, rows.len(), &self.schema)?;
        if !self.outer {
            return filtered(ChangeBatch::inserted(joined), self.filter.as_ref(), rejects);
        }
        let mask = self.filter.as_ref().map(|f| f.mask(&joined)).transpose()?;
        let joined = match &mask {
            Some(mask) => datafusion::arrow::compute::filter_record_batch(&joined, mask)?,
            None => joined,
        };
        let met: Vec<u32> = rows
            .iter()
            .enumerate()
            .filter(|(i, _)| mask.as_ref().is_none_or(|m| m.value(*i)))
            .map(|(_, r)| *r)
            .collect();
        self.with_unmatched(batch, &joined, &met)
    }

    /// Adds the rows that met nothing, with NULLs, each in its place.
    fn with_unmatched(
        &self,
        batch: &ChangeBatch,
        joined: &datafusion::arrow::array::RecordBatch,
        met: &[u32],
    ) -> Result<Changes> {
        let mut matched = vec![false; batch.len()];
        met.iter().for_each(|row| matched[*row as usize] = true);
        let alone: Vec<u32> =
            (0..batch.len()).filter(|r| !matched[*r]).filter_map(|r| u32::try_from(r).ok()).collect();
        let own = take_rows(&batch.rows, &UInt32Array::from(alone.clone()))?;
        let width = own.num_columns();
        let columns = joined
            .columns()
            .iter()
            .enumerate()
            .map(|(i, column)| {
                let tail: ArrayRef = if i < width {
                    Arc::clone(own.column(i))
                } else {
                    new_null_array(column.data_type(), alone.len())
                };
                Ok(concat(&[column.as_ref(), tail.as_ref()])?)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut order: Vec<(u32, u32)> = met.iter().chain(&alone).copied().zip(0u32..).collect();
        order.sort_unstable();
        let all = batch_of(&self.schema, columns, order.len())?;
        let indices: UInt32Array = order.into_iter().map(|(_, index)| index).collect();
        Ok(vec![ChangeBatch::inserted(take_rows(&all, &indices)?)])
    }
}

impl Operator for Lookup {
    fn step(&mut self, inputs: Vec<Changes>, rejects: &mut StepRejects) -> Result<Changes> {
        let mut inputs = inputs.into_iter();
        let (stream, table) = (inputs.next().unwrap_or_default(), inputs.next().unwrap_or_default());
        for batch in &table {
            for part in resilient(batch, rejects, &mut |b| self.table.keys().keyed(b))? {
                self.table.apply(&part)?;
            }
        }
        let mut out = Vec::new();
        for batch in &stream {
            for (part, keys) in
                resilient(batch, rejects, &mut |b| Ok((b.clone(), self.stream.batch_keys(b)?)))?
            {
                out.extend(self.meet(&part, &keys, rejects)?);
            }
        }
        out.retain(|b: &ChangeBatch| !b.is_empty());
        Ok(out)
    }

    fn share(&mut self, table: &TableStore, columns: Vec<usize>) {
        self.table.share(table, columns);
    }

    fn save(&self, image: &mut Image) {
        self.table.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.table.load(state)
    }

    fn state_bytes(&self) -> usize {
        self.table.bytes()
    }
}
