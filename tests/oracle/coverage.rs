//! What the cases reached: each operator, each of its inputs, rows that come and rows that go.

use std::collections::BTreeMap;

use executor::Snapshot;
use planner::{NodeKind, Relation};

/// Operators that no case can reach, because no batch query says what they should answer; the files
/// under `slt/` hold them: `join/` and `window/final.slt`.
pub const HELD_ELSEWHERE: [&str; 5] = ["Lookup 0", "Lookup 1", "EmitFinal 0", "EmitFinal 1", "Unmatched 0"];
/// Operators over what only comes.
const NOTHING_GOES: [&str; 1] = ["SessionAggregate 0"];

/// Joins that find the rows of one side in a table.
const LOOKED_UP: &str = "Join that looks up";

/// Functions of groups that must be reached as well.
const FUNCTIONS: [&str; 10] = [
    "avg",
    "avg distinct",
    "bool_and",
    "bool_or",
    "count",
    "count distinct",
    "max",
    "min",
    "sum",
    "sum distinct",
];

/// Rows that came and rows that went, by operator and input.
#[derive(Debug, Default)]
pub struct Coverage {
    cells: BTreeMap<String, [u64; 2]>,
    /// Operators that worked for several views.
    pub shared: usize,
}

impl Coverage {
    /// Takes in what the operators of a running view have seen.
    pub fn take(&mut self, snapshot: &Snapshot, relation: &Relation) {
        let (Some(dataflow), Some(status)) = (relation.dataflow(), snapshot.query(relation.id)) else {
            return;
        };
        self.shared += status.operators.iter().filter(|operator| operator.shared).count();
        let node_inputs =
            dataflow.nodes.iter().flat_map(|n| n.inputs.iter().enumerate().map(move |i| (n, i)));
        for (node, (position, input)) in node_inputs {
            let Some(below) = status.operators.get(*input) else { continue };
            let came = below.rows_out - below.rows_retracted;
            let looked_up = dataflow.shared_side(node).map(|_| format!("{LOOKED_UP} {position}"));
            for name in names(&node.kind, position).into_iter().chain(looked_up) {
                let cell = self.cells.entry(name).or_default();
                cell[0] += came;
                cell[1] += below.rows_retracted;
            }
        }
    }

    pub fn add(&mut self, other: Self) {
        self.shared += other.shared;
        for (name, counts) in other.cells {
            let cell = self.cells.entry(name).or_default();
            (0..2).for_each(|i| cell[i] += counts[i]);
        }
    }

    /// Cells that must be reached and were not.
    pub fn missing(&self) -> Vec<String> {
        let two = ["Join"];
        let all = NodeKind::NAMES.iter().filter(|name| !matches!(**name, "Source" | "Now" | "Values"));
        let cells =
            all.flat_map(|name| (0..=usize::from(two.contains(name))).map(move |i| format!("{name} {i}")));
        let reached = |cell: &String| self.cells.get(cell).copied().unwrap_or_default();
        let cells = cells.filter(|cell| !HELD_ELSEWHERE.contains(&cell.as_str()));
        let functions = FUNCTIONS.iter().map(|name| format!("Aggregate {name}"));
        let looked_up = (0..2).map(|i| format!("{LOOKED_UP} {i}"));
        cells
            .chain(functions)
            .chain(looked_up)
            .flat_map(|cell| {
                let [came, went] = reached(&cell);
                let went = if NOTHING_GOES.contains(&cell.as_str()) { 1 } else { went };
                [(came, "rows that come"), (went, "rows that go")]
                    .into_iter()
                    .filter(|(n, _)| *n == 0)
                    .map(move |(_, what)| format!("{cell}: {what}"))
            })
            .collect()
    }

    /// The table.
    pub fn print(&self) {
        println!("{:<40} {:>10} {:>10}", "operator and input", "came", "went");
        for (name, [came, went]) in &self.cells {
            println!("{name:<40} {came:>10} {went:>10}");
        }
        println!("{} operators worked for several views", self.shared);
        println!("held by files under slt/: {}", HELD_ELSEWHERE.join(", "));
    }
}

/// The names of an input's cells: of the operator, and of each aggregate function in it.
fn names(kind: &NodeKind, position: usize) -> Vec<String> {
    // The inputs of a union are alike.
    let position = if matches!(kind, NodeKind::Union) { 0 } else { position };
    let mut names = vec![format!("{} {position}", kind.name())];
    if let NodeKind::Aggregate { aggregates, .. } = kind {
        let calls = aggregates.iter().map(|e| e.to_string());
        let function = |call: String| match call.split_once('(') {
            Some((name, rest)) if rest.starts_with("DISTINCT") => format!("Aggregate {name} distinct"),
            Some((name, _)) => format!("Aggregate {name}"),
            None => format!("Aggregate {call}"),
        };
        names.extend(calls.map(function));
    }
    names
}
