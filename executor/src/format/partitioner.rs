//! Which partition a record belongs to: by its key as Kafka's Java clients have it, without a key by
//! its value, so that a replay puts it there again.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, AsArray, BinaryArray, RecordBatch, UInt32Array};

use crate::error::Result;
use crate::layout::take_rows;

/// Records by partition, in their order.
pub(crate) fn split(records: RecordBatch, partitions: u32) -> Result<Vec<(u32, RecordBatch)>> {
    if partitions <= 1 {
        return Ok(vec![(0, records)]);
    }
    let (keys, values) = (records.column(0).as_binary::<i32>(), records.column(1).as_binary::<i32>());
    let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for row in 0..records.num_rows() {
        let named = [keys, values].into_iter().find(|a: &&BinaryArray| a.is_valid(row));
        let named = named.map_or(&[][..], |array| array.value(row));
        rows.entry(partition_of(named, partitions)).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    let taken = |(partition, rows)| Ok((partition, take_rows(&records, &UInt32Array::from(rows))?));
    rows.into_iter().map(taken).collect()
}

/// The partition of a key among `partitions`.
fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions.max(1)
}

/// MurmurHash2 by Austin Appleby, 32 bits, with the seed that Kafka's producers use.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ (data.len() as u32);
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let rest = tail.iter().rev().fold(0, |acc, byte| (acc << 8) | u32::from(*byte));
        hash = (hash ^ rest).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_kafkas_own_test_values() {
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (data, hash) in known {
            assert_eq!(murmur2(data).cast_signed(), hash);
        }
    }
}
