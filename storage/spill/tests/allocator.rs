//! The allocator under everything that Rust programs do with memory, on many threads, inside of rooms and outside,
//! while the keeper takes pages out of memory all the time: what was written is what is read.

use std::collections::HashMap;
use std::sync::mpsc::sync_channel;
use std::thread;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use spill::{Allocator, Room, is_inside, within};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const THREADS: usize = 4;
const STEPS: usize = 6_000;

/// A vector whose every element says which one it is.
fn filled(length: usize, mark: u64) -> Vec<u64> {
    (0..length as u64).map(|i| i ^ mark).collect()
}

fn assert_filled(values: &[u64], mark: u64) {
    assert!(values.iter().zip(0u64..).all(|(value, i)| *value == i ^ mark), "memory was lost");
}

fn seed() -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("SEED={seed}");
    seed
}

/// Lengths of all size classes: most small, some of megabytes.
fn length(random: &mut StdRng) -> usize {
    let most = 1usize << random.random_range(0..18);
    random.random_range(0..=most)
}

#[test]
fn what_was_written_is_read() {
    let directory = tempfile::tempdir().unwrap();
    spill::lie_in(&directory.path().join("spilled"));
    // Next to nothing may stay in memory.
    let room = Room::open(1 << 20).expect("the file can be made");
    assert!(std::fs::read_dir(directory.path().join("spilled")).unwrap().next().is_none(), "it has a name");
    let seed = seed();
    // What one thread makes, another one frees.
    let (give, take) = sync_channel::<(Vec<u64>, u64)>(64);
    let dropper = thread::spawn(move || take.iter().for_each(|(values, mark)| assert_filled(&values, mark)));
    let workers: Vec<_> = (0..THREADS)
        .map(|number| {
            let give = give.clone();
            thread::spawn(move || {
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
                let mut held: Vec<(Vec<u64>, u64)> = Vec::new();
                for step in 0..STEPS {
                    let mark = random.random();
                    let inside = random.random_bool(0.7);
                    within(inside, || {
                        assert_eq!(is_inside(), inside);
                        let at = if held.is_empty() { 0 } else { random.random_range(0..held.len()) };
                        match random.random_range(0..6) {
                            0 | 1 => held.push((filled(length(&mut random), mark), mark)),
                            2 => held.push((vec![0; length(&mut random)], u64::MAX)),
                            3 if !held.is_empty() => {
                                let (values, mark) = &mut held[at];
                                if *mark != u64::MAX {
                                    let from = values.len() as u64;
                                    values
                                        .extend((from..from + length(&mut random) as u64).map(|i| i ^ *mark));
                                }
                            }
                            4 if !held.is_empty() => {
                                let (values, _) = &mut held[at];
                                values.truncate(values.len() / 2);
                                values.shrink_to_fit();
                            }
                            _ if !held.is_empty() => {
                                let (values, mark) = held.swap_remove(at);
                                if mark == u64::MAX {
                                    assert!(values.iter().all(|value| *value == 0), "zeros are none");
                                } else {
                                    give.send((values, mark)).unwrap();
                                }
                            }
                            _ => {}
                        }
                    });
                    if held.len() > 200 || step % 1_000 == 999 {
                        for (values, mark) in held.drain(..).filter(|(_, mark)| *mark != u64::MAX) {
                            assert_filled(&values, mark);
                        }
                    }
                }
            })
        })
        .collect();
    drop(give);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    dropper.join().unwrap();
    assert!(!room.is_full());
    // Maps, text and what is aligned in its own way.
    within(true, || {
        #[repr(align(256))]
        struct Wide(u8);
        let wide: Vec<Box<Wide>> = (0..100).map(|i| Box::new(Wide(i))).collect();
        assert!(
            wide.iter()
                .zip(0..)
                .all(|(wide, i)| wide.0 == i && (&raw const **wide as usize).is_multiple_of(256))
        );
        let mut texts: HashMap<u64, String> = (0..100_000).map(|i| (i, format!("number {i}"))).collect();
        texts.retain(|key, _| key % 3 == 0);
        assert!(texts.iter().all(|(key, text)| *text == format!("number {key}")));
    });
}

#[test]
fn a_panic_ends_what_is_inside() {
    let caught = std::panic::catch_unwind(|| within(true, || panic!("as it should")));
    assert!(caught.is_err() && !is_inside());
}
