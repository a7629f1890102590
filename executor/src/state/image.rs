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

/// Room for short values, where there are few and where there are many.
const FIRST_BYTES: usize = 2 << 10;
const OPEN_BYTES: usize = 1 << 20;

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

/// Takes a page of an image.
type WritePage<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;
/// Encodes a vector.
type GivePages = dyn FnOnce(&mut WritePage<'_>) -> Result<()> + Send;

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
    /// Encoded when it is written, a page at a time.
    Vector(Box<GivePages>),
    /// Made and encoded when it is written.
    Later(Box<dyn FnOnce() -> Result<Vec<u8>> + Send>),
    Rows(RecordBatch),
}

impl Image {
    pub(crate) fn value(&mut self, value: impl Plain) {
        value.put(self.room(size_of_val(&value)));
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.value(u8::from(flag));
    }

    pub(crate) fn count(&mut self, n: usize) {
        self.value(n as u64);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.value(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.room(bytes.len()).extend_from_slice(bytes);
    }

    pub(crate) fn vector<T: Plain>(&mut self, values: &[T]) {
        self.count(values.len());
        if values.len() * T::BYTES < SHORT_BYTES {
            let open = self.room(size_of_val(values));
            values.iter().for_each(|value| value.put(open));
            return;
        }
        let copy = values.to_vec();
        self.copied += size_of_val(values);
        self.seal();
        self.pieces.push(Piece::Vector(Box::new(move |page| {
            let mut bytes = Vec::with_capacity(PAGE_BYTES + T::BYTES);
            for value in copy {
                value.put(&mut bytes);
                if bytes.len() >= PAGE_BYTES {
                    page(&bytes[..PAGE_BYTES])?;
                    bytes.drain(..PAGE_BYTES);
                }
            }
            if bytes.is_empty() { Ok(()) } else { page(&bytes) }
        })));
    }

    /// What `make` gives, as `bytes` would have it: it is made when the next epochs go on.
    pub(crate) fn later(&mut self, make: impl FnOnce() -> Result<Vec<u8>> + Send + 'static) {
        self.seal();
        self.pieces.push(Piece::Later(Box::new(make)));
    }

    /// Rows that nobody changes: they are not copied.
    pub(crate) fn rows(&mut self, rows: &RecordBatch) {
        self.seal();
        self.pieces.push(Piece::Rows(rows.clone()));
    }

    /// Adds what another one has.
    pub(crate) fn append(&mut self, mut other: Self) {
        other.seal();
        self.seal();
        self.copied += other.copied;
        self.pieces.append(&mut other.pieces);
    }

    /// Bytes that are held beside the state itself.
    pub(crate) fn copied(&self) -> usize {
        self.copied + self.open.len()
    }

    /// Where short values go. It does not grow: to move what is there would take longer than to copy it.
    fn room(&mut self, bytes: usize) -> &mut Vec<u8> {
        if self.open.capacity() - self.open.len() < bytes {
            let capacity = if self.open.capacity() == 0 { FIRST_BYTES } else { OPEN_BYTES };
            self.seal();
            self.open.reserve_exact(capacity.max(bytes));
        }
        &mut self.open
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
                Piece::Vector(encode) => {
                    encode(&mut page)?;
                    continue;
                }
                Piece::Later(make) => {
                    let body = make()?;
                    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
                    [&length.to_le_bytes(), body.as_slice()].concat()
                }
                Piece::Rows(rows) => {
                    let body = encode_batches(&rows.schema(), std::slice::from_ref(&rows))?;
                    [&(body.len() as u64).to_le_bytes(), body.as_ref()].concat()
                }
            };
            bytes.chunks(PAGE_BYTES).try_for_each(&mut page)?;
        }
        Ok(())
    }
}
