//! The rows of each partition that have its greatest value, where the values of rows only rise.
//!
//! A row below the greatest value is forgotten: it can only come back by a change of its own, with a greater
//! value. Invariant: what is kept of a partition are all rows whose value is the greatest it ever had.

use datafusion::arrow::array::{Array, AsArray, UInt32Array};
use datafusion::arrow::datatypes::Int64Type;

use super::keyed_rows::{Keyed, KeyedRows};
use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::expression::Expression;
use crate::keys::{KeyTable, Slot, hash};
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader, Stateful};

pub(crate) struct Greatest {
    value: Expression,
    /// The least value counts: values are compared by their complements.
    least: bool,
    partitions: KeyTable,
    /// The greatest value of each partition.
    greatest: Vec<i64>,
    /// The rows that have it, by partition.
    rows: KeyedRows,
}

/// Changes with the partition of each row, and its value; None for a row without one.
struct Placed {
    keyed: Keyed,
    places: Vec<Option<(Slot, i64)>>,
}

impl Greatest {
    pub(crate) fn new(value: Expression, least: bool, rows: KeyedRows) -> Self {
        Self { value, least, partitions: KeyTable::default(), greatest: Vec::new(), rows }
    }

    /// Finds the partitions of changes; those whose greatest value is a new one are added to `risen`.
    fn place(&mut self, changes: &ChangeBatch, risen: &mut Vec<Slot>) -> Result<Placed> {
        let keyed = self.rows.keyed(changes)?;
        let values = self.value.evaluate(&keyed.batch.rows)?;
        let values = values
            .as_primitive_opt::<Int64Type>()
            .ok_or_else(|| Error::bug("greatest", "its value is no whole number"))?;
        let count = keyed.batch.len();
        let mut places = Vec::with_capacity(count);
        for row in 0..count {
            self.partitions.warm(row, count, |row| keyed.hash(row));
            if values.is_null(row) {
                places.push(None);
                continue;
            }
            let value = if self.least { !values.value(row) } else { values.value(row) };
            let (slot, new) = self.partitions.insert_hashed(keyed.hash(row), keyed.key(row));
            if self.greatest.len() <= slot as usize {
                self.greatest.resize(self.partitions.capacity(), i64::MIN);
            }
            if keyed.batch.weight(row) > 0 && value > self.greatest[slot as usize] {
                self.greatest[slot as usize] = value;
                if !new && risen.last() != Some(&slot) {
                    risen.push(slot);
                }
            }
            places.push(Some((slot, value)));
        }
        Ok(Placed { keyed, places })
    }

    /// The rows that had the greatest value until now; they are forgotten.
    fn outdone(&mut self, mut risen: Vec<Slot>) -> Result<Option<ChangeBatch>> {
        risen.sort_unstable();
        risen.dedup();
        let mut gone = Vec::new();
        for slot in risen {
            let key = self.partitions.key(slot);
            gone.extend(self.rows.matches(hash(key), key));
        }
        self.rows.forget(&gone)
    }

    /// Takes the changes of rows that have the greatest value.
    fn take(&mut self, placed: &Placed) -> Result<Option<ChangeBatch>> {
        let is_greatest = |place: &Option<(Slot, i64)>| {
            place.is_some_and(|(slot, value)| self.greatest[slot as usize] == value)
        };
        let rows = placed.places.iter().enumerate().filter(|(_, place)| is_greatest(place));
        let rows: UInt32Array = rows.map(|(row, _)| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let chosen = placed.keyed.batch.take(&rows)?;
        self.rows.apply(&self.rows.keyed(&chosen)?)?;
        Ok(Some(chosen))
    }
}

impl Operator for Greatest {
    fn step(&mut self, inputs: Vec<Changes>, _: &mut StepRejects) -> Result<Changes> {
        let mut risen = Vec::new();
        let placed: Vec<Placed> =
            inputs.iter().flatten().map(|batch| self.place(batch, &mut risen)).collect::<Result<_>>()?;
        let mut out: Changes = self.outdone(risen)?.into_iter().collect();
        for batch in &placed {
            out.extend(self.take(batch)?);
        }
        self.rows.check()?;
        Ok(out)
    }

    fn save(&self, image: &mut Image) {
        self.partitions.save(image);
        image.vector(&self.greatest);
        self.rows.save(image);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.partitions.load(state)?;
        self.greatest = state.vector()?;
        self.rows.load(state)
    }

    fn state_bytes(&self) -> usize {
        self.partitions.bytes() + self.greatest.capacity() * size_of::<i64>() + self.rows.bytes()
    }
}
