//! State on its way into a checkpoint: copied while the epoch stands, encoded when the next ones go on.
//!
//! Long vectors begin pages of their own: one that has not changed has the pages it had before, whatever
//! comes before it.

use datafusion::arrow::array::RecordBatch;
use storage::checkpoint::PAGE_BYTES;

use super::plain::Plain;
use super::reader::StateReader;
use crate::error::Result;
use crate::format::encode_batches;

/// Vectors shorter than this lie among what is around them.
const SHORT_BYTES: usize = 4 << 10;

/// What has state that outlives the process.
pub(crate) trait Stateful {
    /// Copies it.
    fn save(&self, image: &mut Image);
    /// Takes it back, into one that is new.
    ///
    /// # Errors
    /// [`crate::Error::Bug`] when the bytes are not such a state.
    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()>;
}

/// State that was copied.
#[derive(Default)]
pub(crate) struct Image {
    pieces: Vec<Piece>,
    /// Short values since the last piece.
    open: Vec<u8>,
    copied: usize,
}

enum Piece {
    Bytes(Vec<u8>),
    /// Encoded when it is written.
    Vector(Box<dyn FnOnce() -> Vec<u8> + Send>),
    Rows(RecordBatch),
}

impl Image {
    pub(crate) fn value(&mut self, value: impl Plain) {
        value.put(&mut self.open);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.value(u8::from(flag));
    }

    pub(crate) fn count(&mut self, n: usize) {
        self.value(n as u64);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.value(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.open.extend_from_slice(bytes);
    }

    pub(crate) fn vector<T: Plain>(&mut self, values: &[T]) {
        self.count(values.len());
        if values.len() * T::BYTES < SHORT_BYTES {
            values.iter().for_each(|value| value.put(&mut self.open));
            return;
        }
        let copy = values.to_vec();
        self.copied += size_of_val(values);
        self.seal();
        self.pieces.push(Piece::Vector(Box::new(move || {
            let mut bytes = Vec::with_capacity(copy.len() * T::BYTES);
            copy.into_iter().for_each(|value| value.put(&mut bytes));
            bytes
        })));
    }

    /// Rows that nobody changes: they are not copied.
    pub(crate) fn rows(&mut self, rows: &RecordBatch) {
        self.seal();
        self.pieces.push(Piece::Rows(rows.clone()));
    }

    /// Bytes that are held beside the state itself.
    pub(crate) fn copied(&self) -> usize {
        self.copied + self.open.len()
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.copied += self.open.len();
            self.pieces.push(Piece::Bytes(std::mem::take(&mut self.open)));
        }
    }

    /// Encodes everything, a page at a time.
    pub(crate) fn encode(mut self, mut page: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.seal();
        for piece in self.pieces {
            let bytes = match piece {
                Piece::Bytes(bytes) => bytes,
                Piece::Vector(encode) => encode(),
                Piece::Rows(rows) => {
                    let body = encode_batches(&rows.schema(), std::slice::from_ref(&rows))?;
                    page(&(body.len() as u64).to_le_bytes())?;
                    body.to_vec()
                }
            };
            bytes.chunks(PAGE_BYTES).try_for_each(&mut page)?;
        }
        Ok(())
    }
}
