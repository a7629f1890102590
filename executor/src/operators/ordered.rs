//! The rows of one partition in an order: few of them in a sorted list, many in a tree.
//!
//! A row is the bytes of its order and then its own, so that bytes compare as the order says and rows
//! equal in it as their values do.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::state::{Image, StateReader, Stateful};

/// Partitions that keep no more rows than this are sorted lists.
const FEW_ROWS: usize = 64;

/// Where a row's own bytes begin, and how often it is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) row_at: u32,
    pub(super) weight: i64,
}

/// Rows in order.
#[derive(Debug, Clone)]
pub(super) enum Ordered {
    /// For partitions of which the first row alone is kept.
    First(Option<(Arc<[u8]>, Place)>),
    /// For partitions that never grow beyond some rows.
    Few(Vec<(Arc<[u8]>, Place)>),
    /// For any number.
    Many(BTreeMap<Arc<[u8]>, Place>),
}

/// What a change did to the number of rows kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    More,
    Same,
    Fewer,
    /// The same; one of this many bytes is another now.
    Another(usize),
}

impl Ordered {
    /// For partitions that keep at most `rows` rows and one on the way.
    pub(super) fn new(rows: usize) -> Self {
        match rows {
            1 => Self::First(None),
            ..=FEW_ROWS => Self::Few(Vec::new()),
            _ => Self::Many(BTreeMap::new()),
        }
    }

    /// Rows that differ.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::First(row) => usize::from(row.is_some()),
            Self::Few(rows) => rows.len(),
            Self::Many(rows) => rows.len(),
        }
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        match self {
            Self::First(row) => row.as_ref().map(|(key, _)| key.as_ref()),
            Self::Few(rows) => rows.last().map(|(key, _)| key.as_ref()),
            Self::Many(rows) => rows.last_key_value().map(|(key, _)| key.as_ref()),
        }
    }

    /// Takes the last row out; returns its length.
    pub(super) fn pop_last(&mut self) -> Option<usize> {
        match self {
            Self::First(row) => row.take().map(|(key, _)| key.len()),
            Self::Few(rows) => rows.pop().map(|(key, _)| key.len()),
            Self::Many(rows) => rows.pop_last().map(|(key, _)| key.len()),
        }
    }

    /// Adds to a row's weight; a row without weight goes.
    pub(super) fn change(&mut self, key: &[u8], row_at: u32, weight: i64) -> Kept {
        let place = Place { row_at, weight };
        match self {
            // Only rows that come in front of it are brought here.
            Self::First(row) => match row {
                Some((kept, place)) if kept.as_ref() == key => {
                    place.weight += weight;
                    Kept::Same
                }
                other => match other.replace((key.into(), place)) {
                    Some((before, _)) => Kept::Another(before.len()),
                    None => Kept::More,
                },
            },
            Self::Few(rows) => match rows.binary_search_by(|(k, _)| k.as_ref().cmp(key)) {
                Ok(at) => {
                    rows[at].1.weight += weight;
                    if rows[at].1.weight != 0 {
                        return Kept::Same;
                    }
                    rows.remove(at);
                    Kept::Fewer
                }
                Err(at) => {
                    // There are many partitions, and most hold a row or two.
                    if rows.len() == rows.capacity() {
                        rows.reserve_exact(rows.len().max(1));
                    }
                    rows.insert(at, (key.into(), place));
                    Kept::More
                }
            },
            Self::Many(rows) => match rows.get_mut(key) {
                Some(found) => {
                    found.weight += weight;
                    if found.weight != 0 {
                        return Kept::Same;
                    }
                    rows.remove(key);
                    Kept::Fewer
                }
                None => {
                    rows.insert(key.into(), place);
                    Kept::More
                }
            },
        }
    }

    /// Shows the rows in order, until `f` says that it is enough.
    pub(super) fn each(&self, mut f: impl FnMut(&Arc<[u8]>, Place) -> bool) {
        match self {
            Self::First(row) => {
                let _ = row.iter().all(|(key, place)| f(key, *place));
            }
            Self::Few(rows) => {
                let _ = rows.iter().all(|(key, place)| f(key, *place));
            }
            Self::Many(rows) => {
                let _ = rows.iter().all(|(key, place)| f(key, *place));
            }
        }
    }
}

impl Stateful for Ordered {
    fn save(&self, image: &mut Image) {
        image.count(self.len());
        self.each(|key, place| {
            image.value((place.row_at, place.weight));
            image.bytes(key);
            true
        });
    }

    fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        let count = state.count()?;
        let mut rows = Vec::with_capacity(count.min(1 << 20));
        for _ in 0..count {
            let (row_at, weight) = state.value()?;
            rows.push((Arc::from(state.bytes()?), Place { row_at, weight }));
        }
        match self {
            Self::First(row) => *row = rows.pop(),
            Self::Few(few) => {
                rows.shrink_to_fit();
                *few = rows;
            }
            // They come in order, which makes it a tree at once.
            Self::Many(many) => *many = rows.into_iter().collect(),
        }
        Ok(())
    }
}
