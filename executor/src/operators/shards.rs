//! Shards of an operator's state, stepped in parallel where an epoch is worth it.
//!
//! Invariant: results come in the order of the shards, however they were run.

use rayon::prelude::*;

use crate::error::Result;
use crate::operator::Changes;
use crate::state::Image;

/// Rows of an epoch from which its shards are worth a hand-off to other threads.
const PARALLEL_ROWS: usize = 16 * 1024;

/// Runs `step` over every shard with its part of an epoch of `rows` rows.
pub(super) fn step_shards<S: Send, P: Send>(
    shards: &mut [S],
    parts: Vec<P>,
    rows: usize,
    step: impl Fn(&mut S, P) -> Result<Changes> + Sync,
) -> Result<Changes> {
    let stepped: Vec<Result<Changes>> = if rows >= PARALLEL_ROWS && shards.len() > 1 {
        let inside = spill::is_inside();
        let step = |(shard, part)| spill::within(inside, || step(shard, part));
        shards.par_iter_mut().zip(parts).map(step).collect()
    } else {
        shards.iter_mut().zip(parts).map(|(shard, part)| step(shard, part)).collect()
    };
    let mut out = Vec::new();
    for changes in stepped {
        out.extend(changes?);
    }
    Ok(out)
}

/// Copies the state of every shard into a checkpoint.
pub(super) fn save_shards<S: Sync>(shards: &[S], image: &mut Image, save: impl Fn(&S, &mut Image) + Sync) {
    let inside = spill::is_inside();
    let one = |shard: &S| {
        let mut image = Image::default();
        spill::within(inside, || save(shard, &mut image));
        image
    };
    let images: Vec<Image> = shards.par_iter().map(one).collect();
    images.into_iter().for_each(|shard| image.append(shard));
}

/// The shard of a key. The low bits choose the bucket inside a shard, so the shard takes high ones.
pub(super) fn shard_of(hash: u64, shards: usize) -> usize {
    (hash >> 32) as usize % shards
}
