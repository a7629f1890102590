//! What comes and goes leaves nothing behind: the state of a view is as large after many rounds of
//! rows that came and went as it was after a few.

use std::sync::Arc;

use executor::CheckpointPolicy;
use harness::{seed, times};

use crate::grammar::Grammar;
use crate::script::{Change, RELATIONS, Row, View, create_relation};
use crate::world::World;

/// Rounds before the first measure, in which tables take their size, and before the second.
const ROUNDS: [usize; 2] = [50, 300];
/// What garbage may lie about in the tables of an operator before it is collected; a row of each round
/// that stays is far more.
const SLACK: usize = 64 << 10;

/// Every row of a round.
fn rows(round: usize) -> Vec<Row> {
    let row = |id: i32| {
        let n = id.wrapping_mul(7).wrapping_add(i32::try_from(round).unwrap_or(0)) % 11;
        Row {
            id,
            g: Some(["a", "b", "c"][usize::try_from(n).unwrap_or(0) % 3]),
            v: (n > 1).then_some(n),
            f: Some(f64::from(n) / 4.0),
            ts: Some(i64::from(n)),
        }
    };
    (0..24).map(row).collect()
}

async fn round(world: &mut World, round: usize) {
    for deletes in [false, true] {
        let change = |relation| Change { relation, deletes, rows: rows(round) };
        world.write(&[change("t"), change("u")]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_comes_and_goes_leaves_nothing_behind() {
    let first = seed("baseline");
    for seed in (0..times("ORACLE_CASES", 40) as u64 / 8).map(|n| first.wrapping_add(n)) {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::start(directory.path(), Arc::default(), 2, CheckpointPolicy::default());
        for (name, kind) in RELATIONS {
            world.execute(&create_relation(name, kind, "")).await.unwrap();
        }
        let mut grammar = Grammar::new(seed, false);
        for n in 0..5 {
            let name = format!("view{n}");
            let made = grammar.view(&name);
            world.add(&View { after: 0, name, made }).await.unwrap();
        }
        let mut measured = Vec::new();
        let mut done = 0;
        for until in ROUNDS {
            for number in done..until {
                round(&mut world, number).await;
            }
            done = until;
            measured.push(world.state_bytes().await);
        }
        world.check(&format!("SEED={seed}")).await.unwrap_or_else(|failure| panic!("{}", failure.what));
        for ((query, before), (_, after)) in measured[0].iter().zip(&measured[1]) {
            assert!(*after <= before + SLACK, "SEED={seed}: {before} bytes, then {after}: {query}");
        }
    }
}
