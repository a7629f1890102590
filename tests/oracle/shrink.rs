//! From a case that fails to a small one that fails in the same way: views, epochs, changes and rows
//! are left out one by one for as long as it does.

use harness::times;

use crate::script::{NO_CHECKPOINTS, Script};
use crate::world::{Failure, run};

/// Runs at most, unless `ORACLE_TRIES` says otherwise.
const TRIES: usize = 1500;

/// What leaves something out, the most first.
const PASSES: [fn(&Script, usize) -> Option<Script>; 8] = [
    without_views,
    without_inserts,
    without_epochs,
    without_restarts,
    without_format,
    without_checkpoints,
    without_changes,
    without_rows,
];

/// The smallest case found, and how it fails.
pub async fn shrink(script: Script, failure: Failure) -> (Script, Failure) {
    let mut smallest = (script, failure);
    let mut tries = times("ORACLE_TRIES", TRIES);
    loop {
        let before = size(&smallest.0);
        for smaller in PASSES {
            smallest = pass(smallest, smaller, &mut tries).await;
        }
        if size(&smallest.0) == before || tries == 0 {
            return smallest;
        }
    }
}

/// Tries what `smaller` leaves out at each place, from the last one.
async fn pass(
    mut best: (Script, Failure),
    smaller: fn(&Script, usize) -> Option<Script>,
    tries: &mut usize,
) -> (Script, Failure) {
    let mut place = 0;
    while let Some(candidate) = smaller(&best.0, place).filter(|_| *tries > 0) {
        *tries -= 1;
        match run(&candidate, "shrinking").await {
            // The places behind it have moved up.
            Err(failure) if failure.view == best.1.view => best = (candidate, failure),
            _ => place += 1,
        }
    }
    best
}

fn size(script: &Script) -> usize {
    let changes = || script.epochs.iter().flat_map(|e| &e.changes);
    script.views.len()
        + script.inserts.len()
        + script.format.len()
        + usize::from(script.checkpoints.every.is_some())
        + script.epochs.len()
        + changes().map(|c| 1 + c.rows.len()).sum::<usize>()
}

fn without_views(script: &Script, place: usize) -> Option<Script> {
    let mut smaller = script.clone();
    (place < script.views.len()).then(|| smaller.views.remove(place))?;
    Some(smaller)
}

fn without_inserts(script: &Script, place: usize) -> Option<Script> {
    let mut smaller = script.clone();
    (place < script.inserts.len()).then(|| smaller.inserts.remove(place))?;
    Some(smaller)
}

fn without_format(script: &Script, place: usize) -> Option<Script> {
    (place == 0 && !script.format.is_empty()).then(|| Script { format: "", ..script.clone() })
}

fn without_checkpoints(script: &Script, place: usize) -> Option<Script> {
    let any = script.checkpoints.every.is_some();
    (place == 0 && any).then(|| Script { checkpoints: NO_CHECKPOINTS, ..script.clone() })
}

fn without_epochs(script: &Script, place: usize) -> Option<Script> {
    let mut smaller = script.clone();
    let gone = script.epochs.len().checked_sub(place + 1)?;
    smaller.epochs.remove(gone);
    smaller.views.iter_mut().filter(|v| v.after > gone).for_each(|v| v.after -= 1);
    smaller.inserts.iter_mut().filter(|i| i.after > gone).for_each(|i| i.after -= 1);
    Some(smaller)
}

fn without_restarts(script: &Script, place: usize) -> Option<Script> {
    let mut smaller = script.clone();
    smaller.epochs.iter_mut().filter(|e| e.restart.is_some()).nth(place)?.restart = None;
    Some(smaller)
}

fn without_changes(script: &Script, place: usize) -> Option<Script> {
    let mut smaller = script.clone();
    let (epoch, change) = places(script, |_| 1).nth(place)?;
    smaller.epochs[epoch].changes.remove(change);
    Some(smaller)
}

/// Half of a change's rows at first, then each row.
fn without_rows(script: &Script, place: usize) -> Option<Script> {
    let mut smaller = script.clone();
    let (epoch, change) = places(script, |rows| rows).nth(place)?;
    let before = places(script, |rows| rows).take(place).filter(|at| *at == (epoch, change)).count();
    let rows = &mut smaller.epochs[epoch].changes[change].rows;
    if rows.len() > 64 {
        let half = rows.len() / 2;
        if before == 0 {
            rows.drain(..half)
        } else {
            rows.drain(half..)
        };
    } else {
        rows.remove(before);
    }
    Some(smaller)
}

/// Each change as often as `times` says for its number of rows.
fn places(script: &Script, times: fn(usize) -> usize) -> impl Iterator<Item = (usize, usize)> {
    script.epochs.iter().enumerate().flat_map(move |(e, epoch)| {
        let changes = epoch.changes.iter().enumerate();
        changes.flat_map(move |(c, change)| std::iter::repeat_n((e, c), times(change.rows.len())))
    })
}
