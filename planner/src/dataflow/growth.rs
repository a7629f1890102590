//! State that grows for as long as rows come: named before anything is created.
//!
//! What a stream brings is never taken back, so an operator that keeps rows of a stream keeps all of
//! them. Operators that keep a value for each group, or the first rows of each, grow with the groups
//! alone and are not named.

use std::collections::BTreeSet;

use super::{Dataflow, NodeKind};

impl Dataflow {
    /// What grows without bound, one sentence each; empty when nothing does.
    pub fn growth(&self) -> Vec<String> {
        let mut named = BTreeSet::new();
        for node in &self.nodes {
            let keeps: &[usize] = match &node.kind {
                NodeKind::Join { within: None, .. } => &[0, 1],
                NodeKind::Lookup { .. } => &[1],
                NodeKind::Recompute { .. } => &[0],
                _ => &[],
            };
            let what = match &node.kind {
                NodeKind::Recompute { .. } => "the recomputation",
                _ => "the join",
            };
            for side in keeps.iter().filter_map(|n| node.inputs.get(*n)) {
                if self.append_only_at(*side) {
                    for stream in self.relations_below(*side).filter(|relation| relation.is_stream()) {
                        named.insert(format!("{what} keeps every row of stream \"{}\"", stream.name));
                    }
                }
            }
        }
        named.into_iter().collect()
    }
}
