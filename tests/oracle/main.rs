//! The oracle: random changes under random views, stacked up to three deep; after every epoch each
//! view holds exactly what DataFusion answers in batch for the same query over the same inputs,
//! through restarts, with views made before, among and after the data, on one shard and on several.
//!
//! `ORACLE_CASES` sets the number of cases, `SEED=random` looks for new ones, `SEED=N` repeats one run. A case
//! that fails is made small and written as a file for `slt/oracle/`, where it stays.

mod baseline;
mod coverage;
mod grammar;
mod script;
mod shrink;
mod world;

use coverage::Coverage;
use harness::{seed, times};
use script::Script;

/// Cases in which every cell of the coverage is certain to be reached.
const ENOUGH: usize = 80;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn views_equal_the_batch_answer_at_every_epoch() {
    let first = seed("oracle");
    let cases = times("ORACLE_CASES", ENOUGH);
    let mut compared = 0;
    let mut coverage = Coverage::default();
    for seed in (0..cases as u64).map(|n| first.wrapping_add(n)) {
        let script = Script::of(seed);
        match world::run(&script, &format!("SEED={seed}")).await {
            Ok(report) => {
                compared += report.compared;
                coverage.add(report.coverage);
            }
            Err(failure) => {
                println!("SEED={seed}: {}", failure.what);
                // Smaller cases may fail in any way, and loudly.
                std::panic::set_hook(Box::new(|_| {}));
                let (script, failure) = shrink::shrink(script, failure).await;
                let file = std::env::temp_dir().join(format!("seed-{seed}.slt"));
                let text = script.slt(failure.view.as_deref().unwrap_or_default(), &failure.columns);
                std::fs::write(&file, &text).unwrap();
                let _ = std::panic::take_hook();
                panic!("SEED={seed}: {}\n{text}\nwritten to {}", failure.what, file.display());
            }
        }
    }
    coverage.print();
    println!("{compared} comparisons, 0 differences");
    assert!(compared >= cases * 40);
    if cases >= ENOUGH {
        assert_eq!(coverage.missing(), Vec::<String>::new(), "not reached");
        assert!(coverage.shared > cases, "views share what they have in common");
    }
}
