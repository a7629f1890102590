//! Changes to input that was good: pieces cut out, doubled, swapped and replaced, so that most of it still is.
//!
//! Invariant: what comes out depends on the generator alone, so that a seed says what was sent.

use rand::Rng;
use rand::rngs::StdRng;

/// Most changes to one input.
const MOST: usize = 3;
/// Most pieces that one change cuts out or doubles.
const SPAN: usize = 4;

/// Pieces of statements that are at the edge of something.
pub const WORDS: [&str; 28] = [
    "NULL",
    "0",
    "-1",
    "1",
    "2147483648",
    "-9223372036854775808",
    "9223372036854775808",
    "1e400",
    "'NaN'",
    "''",
    "'\\x'",
    "(",
    ")",
    ",",
    "*",
    "'",
    "\"",
    ";",
    "$1",
    "::int",
    "::text[]",
    "DISTINCT",
    "NOT",
    "SELECT",
    "FROM",
    "NULL::date",
    "ARRAY[]",
    "INTERVAL '1 month'",
];

/// One of `inputs` after a few changes, with pieces of the others and of `edges`, which are of interest.
pub fn mutated<T: Clone>(random: &mut StdRng, inputs: &[Vec<T>], edges: &[T]) -> Vec<T> {
    let mut out = inputs[random.random_range(0..inputs.len())].clone();
    for _ in 0..random.random_range(1..=MOST) {
        let at = random.random_range(0..=out.len());
        let end = (at + random.random_range(1..=SPAN)).min(out.len());
        match random.random_range(0..7) {
            0 => drop(out.drain(at..end)),
            1 => {
                let twice = out[at..end].to_vec();
                out.splice(at..at, twice);
            }
            2 => {
                let other = &inputs[random.random_range(0..inputs.len())];
                let from = random.random_range(0..=other.len());
                let to = (from + random.random_range(1..=SPAN)).min(other.len());
                out.splice(at..end, other[from..to].iter().cloned());
            }
            3 => {
                let other = &inputs[random.random_range(0..inputs.len())];
                if let (Some(one), false) = (out.get_mut(at), other.is_empty()) {
                    one.clone_from(&other[random.random_range(0..other.len())]);
                }
            }
            4 if at < out.len() => {
                let with = random.random_range(0..out.len());
                out.swap(at, with);
            }
            _ => {
                let edge = edges[random.random_range(0..edges.len())].clone();
                out.splice(at..(at + 1).min(out.len()), [edge]);
            }
        }
    }
    out
}
