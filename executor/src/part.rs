//! Parts of running queries: taken out of one with their state, and read by it and by others from then on.
//!
//! A part ends in one node and steps what is below it, on the dataflow of the query that it was taken from.
//! Invariant: a query brings the same before and after a part was taken out of it. The engine's shared plans
//! (`engine/shared_plans.rs`) are parts.

use std::sync::Arc;

use planner::{Dataflow, NodeId, PlanIdentity, RelationId};

use crate::error::Result;
use crate::query::{Query, Slot};

impl Query {
    /// The shared plans that it reads, each where a node's changes come from it.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (NodeId, RelationId)> {
        self.order.iter().filter_map(|id| match self.slots[*id] {
            Slot::Shared(plan) => Some((*id, plan)),
            _ => None,
        })
    }

    /// Whether it steps a node itself.
    pub(crate) fn steps(&self, node: NodeId) -> bool {
        self.order.contains(&node) && !matches!(self.slots[node], Slot::Shared(_))
    }

    /// Whether it steps a node with an operator of its own.
    fn has_own(&self, node: NodeId) -> bool {
        self.slots[node].operator().is_some()
    }

    /// The nodes with operators of its own that could work for others too, those that are read first.
    pub(crate) fn own_identities(&self) -> impl DoubleEndedIterator<Item = (NodeId, PlanIdentity)> {
        let own = self.order.iter().filter(|id| self.has_own(**id));
        own.filter_map(|id| Some((*id, self.identity(*id)?)))
    }

    /// The changes of a node come from a shared plan from now on; what only that node read is let go.
    pub(crate) fn read_shared(&mut self, node: NodeId, plan: RelationId) {
        self.slots[node] = Slot::Shared(plan);
        let kept = self.reached(None);
        self.keep(&kept);
    }

    /// A node below `node`, with state at or below it, that something else than what is below `node` reads too.
    pub(crate) fn read_elsewhere(&self, node: NodeId) -> Option<NodeId> {
        let others = self.reached(Some(node));
        let below = self.dataflow.below(node);
        let with_state = |id: &NodeId| self.has_own(*id) && self.identity(*id).is_some();
        below.into_iter().rfind(|id| *id != node && others[*id] && with_state(id))
    }

    /// Takes a node out, with what is below it, and reads it as the shared plan `plan`.
    ///
    /// Nothing with state below it is read elsewhere.
    ///
    /// # Errors
    /// Expressions that do not compile; nothing has changed then.
    pub(crate) fn take_part(&mut self, node: NodeId, plan: RelationId) -> Result<Self> {
        let below = self.dataflow.below(node);
        let mut part = Self::empty(Arc::clone(&self.dataflow), node, below, self.shards);
        let others = self.reached(Some(node));
        let stays = |id: NodeId| id != node && others[id];
        for id in part.order.clone() {
            part.slots[id] = match self.slots[id] {
                // It has no state: each has one of its own.
                Slot::Own(_) if stays(id) => part.built(id)?,
                Slot::Shared(shared) => Slot::Shared(shared),
                _ => Slot::None,
            };
        }
        for id in part.order.clone() {
            if self.has_own(id) && !stays(id) {
                part.slots[id] = std::mem::replace(&mut self.slots[id], Slot::None);
                part.work[id] = self.work[id];
            }
        }
        let kept = part.reached(None);
        part.keep(&kept);
        self.read_shared(node, plan);
        Ok(part)
    }

    /// A part without state, as it was when a checkpoint was made: `shared` are the shared plans that the query
    /// it is a part of read, directly or not.
    ///
    /// # Errors
    /// Expressions that do not compile.
    pub(crate) fn new_part(
        dataflow: &Arc<Dataflow>,
        node: NodeId,
        shards: usize,
        shared: &[(NodeId, RelationId)],
    ) -> Result<Self> {
        let mut part = Self::empty(Arc::clone(dataflow), node, dataflow.below(node), shards);
        for id in part.order.clone() {
            part.slots[id] = part.built(id)?;
        }
        for (id, plan) in shared.iter().filter(|(id, _)| *id != node && part.order.contains(id)) {
            part.slots[*id] = Slot::Shared(*plan);
        }
        let kept = part.reached(None);
        part.keep(&kept);
        Ok(part)
    }

    /// The nodes that the result needs, if the changes of `without` came from somewhere else.
    fn reached(&self, without: Option<NodeId>) -> Vec<bool> {
        let mut reached = vec![false; self.slots.len()];
        let mut way = vec![self.root];
        while let Some(id) = way.pop() {
            let met = std::mem::replace(&mut reached[id], true);
            if !met && Some(id) != without && !matches!(self.slots[id], Slot::Shared(_)) {
                way.extend(&self.dataflow.nodes[id].inputs);
            }
        }
        reached
    }

    /// Steps some of its nodes only.
    fn keep(&mut self, kept: &[bool]) {
        self.order.retain(|id| kept[*id]);
        for (slot, kept) in self.slots.iter_mut().zip(kept) {
            if !kept {
                *slot = Slot::None;
            }
        }
        self.count_readers();
    }
}
