//! State out of a checkpoint, in the order in which it was saved.

use datafusion::arrow::array::RecordBatch;

use super::plain::Plain;
use crate::error::{Error, Result};
use crate::format::decode_batches;

/// Longest vector or text that is believed, bytes.
const LONGEST: u64 = 1 << 40;

/// Reads a section.
pub(crate) struct StateReader<'a> {
    pages: Box<dyn Iterator<Item = storage::Result<Vec<u8>>> + 'a>,
    page: Vec<u8>,
    at: usize,
}

impl<'a> StateReader<'a> {
    pub(crate) fn new(pages: impl Iterator<Item = storage::Result<Vec<u8>>> + 'a) -> Self {
        Self { pages: Box::new(pages), page: Vec::new(), at: 0 }
    }

    pub(crate) fn value<T: Plain>(&mut self) -> Result<T> {
        if let Some(bytes) = self.page.get(self.at..self.at + T::BYTES) {
            self.at += T::BYTES;
            return Ok(T::get(bytes));
        }
        let mut bytes = Vec::with_capacity(T::BYTES);
        self.take(T::BYTES, |part| bytes.extend_from_slice(part))?;
        Ok(T::get(&bytes))
    }

    pub(crate) fn flag(&mut self) -> Result<bool> {
        Ok(self.value::<u8>()? != 0)
    }

    pub(crate) fn count(&mut self) -> Result<usize> {
        let count: u64 = self.value()?;
        usize::try_from(count).ok().filter(|_| count < LONGEST).ok_or_else(misfit)
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>> {
        let length = self.value::<u32>()? as usize;
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        self.take(length, |part| bytes.extend_from_slice(part))?;
        Ok(bytes)
    }

    pub(crate) fn vector<T: Plain>(&mut self) -> Result<Vec<T>> {
        let count = self.count()?;
        let mut values = Vec::with_capacity(count.min((64 << 20) / T::BYTES));
        // Values may lie across two pages.
        let mut left: Vec<u8> = Vec::new();
        self.take(count * T::BYTES, |mut part| {
            if !left.is_empty() {
                let rest = (T::BYTES - left.len()).min(part.len());
                left.extend_from_slice(&part[..rest]);
                part = &part[rest..];
                if left.len() == T::BYTES {
                    values.push(T::get(&left));
                    left.clear();
                }
            }
            let whole = part.chunks_exact(T::BYTES);
            left.extend_from_slice(whole.remainder());
            values.extend(whole.map(T::get));
        })?;
        Ok(values)
    }

    pub(crate) fn rows(&mut self) -> Result<RecordBatch> {
        let length = self.count()?;
        let mut body = Vec::with_capacity(length.min(1 << 30));
        self.take(length, |part| body.extend_from_slice(part))?;
        decode_batches(&body.into())?.pop().ok_or_else(misfit)
    }

    /// Gives `n` bytes, in parts.
    fn take(&mut self, n: usize, mut give: impl FnMut(&[u8])) -> Result<()> {
        let mut left = n;
        while left > 0 {
            if self.at == self.page.len() {
                self.page = self.pages.next().ok_or_else(misfit)??;
                self.at = 0;
            }
            let part = left.min(self.page.len() - self.at);
            give(&self.page[self.at..self.at + part]);
            (self.at, left) = (self.at + part, left - part);
        }
        Ok(())
    }

    /// Makes sure that nothing is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        match (self.at == self.page.len(), self.pages.next()) {
            (true, None) => Ok(()),
            _ => Err(misfit()),
        }
    }
}

fn misfit() -> Error {
    Error::bug("checkpoint", "a state is not what its operator keeps")
}
