//! f(DISTINCT x): each value of a group counts once, however often it is there.
//!
//! Keeps how often; the inner accumulator sees a value come with its first row and go with its last.

use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::datatypes::DataType;

use super::accumulators::{Accumulator, Input};
use crate::error::{Error, Result};
use crate::keys::{KeyTable, RowCodec, Slot};
use crate::state::{Image, StateReader, Stateful};

pub(crate) struct Distinct {
    inner: Box<dyn Accumulator>,
    codec: RowCodec,
    /// Group and value.
    values: KeyTable,
    weights: Vec<i64>,
}

impl Distinct {
    pub(crate) fn try_new(inner: Box<dyn Accumulator>, argument: &DataType) -> Result<Self> {
        let codec = RowCodec::try_new([argument.clone()])?;
        Ok(Self { inner, codec, values: KeyTable::default(), weights: Vec::new() })
    }

    /// Whether the value's being there changes with `weight` more of it, and to what.
    fn change(&mut self, key: &[u8], weight: i64) -> Option<i64> {
        let (id, _) = self.values.insert(key);
        if self.weights.len() <= id as usize {
            self.weights.resize(self.values.capacity(), 0);
        }
        let count = &mut self.weights[id as usize];
        let was = *count > 0;
        *count += weight;
        let is = *count > 0;
        if *count == 0 {
            self.values.remove(id);
        }
        (was != is).then_some(if is { 1 } else { -1 })
    }
}

impl Accumulator for Distinct {
    fn grow(&mut self, slots: usize) {
        self.inner.grow(slots);
    }

    fn update(&mut self, input: &Input<'_>) -> Result<()> {
        let values = input.values.ok_or_else(|| Error::bug("distinct", "there is no argument"))?;
        let encoded = self.codec.encode(std::slice::from_ref(values), values.len())?;
        let mut weights = vec![0; values.len()];
        let (mut slots, mut rows): (Vec<Slot>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut key = Vec::new();
        input.each(|slot, row, weight| {
            key.clear();
            key.extend_from_slice(&slot.to_le_bytes());
            key.extend_from_slice(encoded.row(row));
            if let Some(change) = self.change(&key, weight) {
                weights[row] = change;
                slots.push(Slot::try_from(slot).unwrap_or(Slot::MAX));
                rows.push(u32::try_from(row).unwrap_or(u32::MAX));
            }
        });
        let weights = Int64Array::from(weights);
        let (slots, rows) = (&slots, &rows);
        self.inner.update(&Input { slots, rows, values: Some(values), mask: None, weights: Some(&weights) })
    }

    fn settle(&mut self, slots: &[Slot]) {
        self.inner.settle(slots);
    }

    fn results(&self, slots: &[Slot]) -> Result<ArrayRef> {
        self.inner.results(slots)
    }

    fn clear(&mut self, slot: Slot) {
        // The values have gone with their last rows.
        self.inner.clear(slot);
    }

    fn bytes(&self) -> usize {
        self.inner.bytes() + self.values.bytes() + self.weights.capacity() * size_of::<i64>()
    }
}

impl Stateful for Distinct {
    fn save(&self, image: &mut Image) {
        self.inner.save(image);
        self.values.save(image);
        image.vector(&self.weights);
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        self.inner.load(state)?;
        self.values.load(state)?;
        self.weights = state.vector()?;
        Ok(())
    }
}
