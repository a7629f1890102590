//! Parts that several queries have in common, stepped once for all of them.
//!
//! A query is built with operators of its own. When it is taken in, each part of it that another query has too
//! (planner's `PlanIdentity`) is let go: the other's is taken out and becomes a shared plan, which both read.
//! A shared plan reads relations and shared plans before it. Invariant: results are what they would be without.
//! Views share with views only, so that what a replay makes does not depend on who had asked push queries.

use std::collections::BTreeSet;
use std::sync::Arc;

use planner::{NodeId, PlanIdentity, RelationId};
use storage::Epoch;

use super::memory::PUSH_QUERIES;
use super::relations::State;
use super::step::Stepper;
use super::view::View;
use crate::error::{Error, Result};
use crate::push::{End, Subscriber};
use crate::query::{EpochChanges, OperatorStatus, Query};
use crate::rejects::StepRejects;

/// A part of several queries. Its changes are among an epoch's, under its id.
pub(super) struct SharedPlan {
    pub(super) id: RelationId,
    pub(super) query: Query,
    /// The level of queries before which it is stepped.
    level: usize,
    /// How its operators do.
    pub(super) operators: Vec<OperatorStatus>,
    /// A view that reads it allocates in the spill file, and so does it.
    pub(super) spills: bool,
}

impl SharedPlan {
    pub(super) fn new(id: RelationId, query: Query) -> Self {
        let mut plan = Self { id, query, level: 0, operators: Vec::new(), spills: false };
        plan.measure();
        plan
    }

    fn measure(&mut self) {
        self.query.report(&mut self.operators);
        self.operators.iter_mut().for_each(|operator| operator.shared = true);
    }

    pub(super) fn state_bytes(&self) -> usize {
        self.operators.iter().map(|operator| operator.state_bytes).sum()
    }

    /// What of it counts as memory of its own: what goes to disk is within the limit of a view.
    fn counted_bytes(&self) -> u64 {
        if self.spills { 0 } else { self.state_bytes() as u64 }
    }

    fn identity(&self) -> Option<PlanIdentity> {
        self.query.identity(self.query.root)
    }
}

/// The operators of a shared plan that work for a view.
pub(super) struct SharedOperators {
    plan: RelationId,
    /// The view's node, the plan's, and how its operator did when the view was last stepped.
    pub(super) nodes: Vec<(NodeId, NodeId, OperatorStatus)>,
}

/// All shared plans, each after those that it reads.
#[derive(Default)]
pub(super) struct SharedPlans {
    pub(super) plans: Vec<SharedPlan>,
    /// How many there have been.
    made: RelationId,
}

impl SharedPlans {
    /// No relation has such a number.
    fn next_id(&mut self) -> RelationId {
        self.made += 1;
        PUSH_QUERIES - self.made
    }

    pub(super) fn restore(&mut self, plans: Vec<SharedPlan>) {
        self.made = plans.iter().map(|plan| PUSH_QUERIES - plan.id).max().unwrap_or_default();
        self.plans = plans;
    }

    pub(super) fn get(&self, id: RelationId) -> Option<&SharedPlan> {
        self.plans.iter().find(|plan| plan.id == id)
    }

    /// Takes a node out of a query, and before it whatever else reads below it: shared plans from `at` on.
    /// Returns the place of the last one.
    fn take_out(&mut self, query: &mut Query, node: NodeId, mut at: usize) -> Result<usize> {
        while let Some(inner) = query.read_elsewhere(node) {
            at = 1 + self.take_out(query, inner, at)?;
        }
        let id = self.next_id();
        self.plans.insert(at, SharedPlan::new(id, query.take_part(node, id)?));
        Ok(at)
    }

    /// The shared plan with this identity among those that `may` be read; one that is a part of another until now.
    fn find(&mut self, identity: PlanIdentity, may: &BTreeSet<RelationId>) -> Result<Option<RelationId>> {
        if let Some(plan) = self.plans.iter().find(|p| may.contains(&p.id) && p.identity() == Some(identity))
        {
            return Ok(Some(plan.id));
        }
        for at in 0..self.plans.len() {
            let plan = &self.plans[at];
            let node = if may.contains(&plan.id) { own_node(&plan.query, identity) } else { None };
            let Some(node) = node else { continue };
            let mut whole = self.plans.remove(at);
            let taken = self.take_out(&mut whole.query, node, at);
            whole.measure();
            let back = taken.as_ref().map_or(at, |last| last + 1);
            self.plans.insert(back, whole);
            return Ok(Some(self.plans[taken?].id));
        }
        Ok(None)
    }

    /// What works for a view that has more than fits in memory goes to disk as well.
    pub(super) fn spill_for(&mut self, view: &View) {
        let read = |plan: &SharedPlan| view.shared.iter().any(|operators| operators.plan == plan.id);
        self.plans.iter_mut().filter(|plan| read(plan)).for_each(|plan| plan.spills = true);
    }

    /// The shared plans a query reads, directly or not, each where its own dataflow has the same node.
    pub(super) fn read_by(&self, query: &Query) -> Vec<(NodeId, RelationId)> {
        let mut all = Vec::new();
        for (node, id) in query.shared() {
            all.push((node, id));
            let Some(plan) = self.get(id) else { continue };
            for (theirs, inner) in self.read_by(&plan.query) {
                all.extend(same_nodes(query, node, plan).find(|same| same.1 == theirs).map(|s| (s.0, inner)));
            }
        }
        all
    }

    /// The operators that work for a query without being its own.
    fn operators_of(&self, query: &Query) -> Vec<SharedOperators> {
        let of_plan = |(node, id): (NodeId, RelationId)| {
            let plan = self.get(id)?;
            let steps = |(_, theirs): &(NodeId, NodeId)| plan.query.steps(*theirs);
            let same = same_nodes(query, node, plan).filter(steps);
            let nodes = same.map(|(own, theirs)| (own, theirs, plan.operators[theirs])).collect();
            Some(SharedOperators { plan: id, nodes })
        };
        self.read_by(query).into_iter().filter_map(of_plan).collect()
    }

    /// Takes note of how they do.
    pub(super) fn report(&self, operators: &mut [SharedOperators]) {
        for operators in operators {
            let Some(plan) = self.get(operators.plan) else { continue };
            for (_, theirs, status) in &mut operators.nodes {
                *status = plan.operators[*theirs];
            }
        }
    }

    /// Those that queries read, directly or not.
    fn read<'a>(&self, queries: impl Iterator<Item = &'a Query>) -> BTreeSet<RelationId> {
        let mut read: BTreeSet<RelationId> = queries.flat_map(Query::shared).map(|(_, id)| id).collect();
        // Who reads a plan comes after it.
        for plan in self.plans.iter().rev() {
            if read.contains(&plan.id) {
                read.extend(plan.query.shared().map(|(_, id)| id));
            }
        }
        read
    }
}

/// A node of a query's own with an identity.
fn own_node(query: &Query, identity: PlanIdentity) -> Option<NodeId> {
    query.own_identities().find(|(_, own)| *own == identity).map(|(node, _)| node)
}

/// The nodes of a query from `node` down, each with the shared plan's that is the same.
fn same_nodes(query: &Query, node: NodeId, plan: &SharedPlan) -> impl Iterator<Item = (NodeId, NodeId)> {
    let theirs = plan.query.dataflow().below(plan.query.root);
    query.dataflow().below(node).into_iter().zip(theirs)
}

impl Stepper {
    /// Lets a view read what other views have of its query already.
    pub(super) fn share_view(&mut self, id: RelationId) {
        let Some(mut state) = self.states.remove(&id) else { return };
        if let State::View(view) = &mut state
            && !view.stands()
            && self.lost_history(view.query.dataflow()).is_none()
        {
            self.share(&mut view.query, false);
        }
        self.states.insert(id, state);
        self.place_shared_plans();
    }

    /// Lets a push query read what other queries have of it already.
    pub(super) fn share_subscriber(&mut self, query: &mut Query) {
        if self.lost_history(query.dataflow()).is_none() {
            self.share(query, true);
            self.place_shared_plans();
        }
    }

    /// The largest parts come first.
    fn share(&mut self, query: &mut Query, with_push_queries: bool) {
        loop {
            let mut may = self.plans_of_views();
            if with_push_queries {
                may.extend(self.shared.plans.iter().map(|plan| plan.id));
            }
            let found = query.own_identities().rev().find_map(|(node, identity)| {
                let plan = self.shared_with(identity, &may, with_push_queries).transpose()?;
                Some(plan.map(|plan| (node, plan)))
            });
            match found {
                Some(Ok((node, plan))) => query.read_shared(node, plan),
                Some(Err(error)) => {
                    tracing::error!(%error, "a part of a query could not be shared");
                    return;
                }
                None => return,
            }
        }
    }

    /// The shared plan with an identity among those that `may` be read; a part of some query until now, if there
    /// is one.
    fn shared_with(
        &mut self,
        identity: PlanIdentity,
        may: &BTreeSet<RelationId>,
        with_push_queries: bool,
    ) -> Result<Option<RelationId>> {
        if let Some(plan) = self.shared.find(identity, may)? {
            return Ok(Some(plan));
        }
        let end = self.shared.plans.len();
        for state in self.states.values_mut() {
            let State::View(view) = state else { continue };
            let Some(node) = own_node(&view.query, identity) else { continue };
            let at = self.shared.take_out(&mut view.query, node, end)?;
            return Ok(Some(self.shared.plans[at].id));
        }
        for subscriber in self.subscribers.iter_mut().filter(|_| with_push_queries) {
            let Some(node) = own_node(&subscriber.query, identity) else { continue };
            let at = self.shared.take_out(&mut subscriber.query, node, end)?;
            return Ok(Some(self.shared.plans[at].id));
        }
        Ok(None)
    }

    /// Says when each shared plan is stepped, and who keeps what.
    pub(super) fn place_shared_plans(&mut self) {
        if self.shared.plans.is_empty() {
            return;
        }
        for plan in &mut self.shared.plans {
            plan.level = self.flow.level_over(&self.catalog, plan.query.sources());
            plan.spills = false;
            self.memory.note(plan.id, plan.counted_bytes());
        }
        for id in self.states.keys().copied().collect::<Vec<_>>() {
            if let Some(State::View(view)) = self.states.get_mut(&id) {
                view.shared = self.shared.operators_of(&view.query);
                if !view.stands() {
                    view.measure();
                }
            }
            self.weigh(id);
        }
    }

    /// Steps the shared plans that queries of a level may read.
    pub(super) fn step_shared_plans(&mut self, level: usize, changes: &mut EpochChanges) {
        let mut failed = Vec::new();
        for at in 0..self.shared.plans.len() {
            let plan = &mut self.shared.plans[at];
            if plan.level != level || !plan.query.is_touched(changes, self.now_ms) {
                continue;
            }
            let (id, mut rejects) = (plan.id, StepRejects::default());
            let step = || plan.query.step(changes, self.now_ms, &mut rejects);
            let stepped = spill::within(plan.spills, step);
            plan.measure();
            self.memory.note(id, plan.counted_bytes());
            match stepped {
                Ok(new) if new.is_empty() => {}
                Ok(new) => drop(changes.insert(id, Arc::new(new))),
                Err(error) => failed.push((id, error)),
            }
            self.note_shared(id, &rejects);
        }
        for (id, error) in failed {
            self.fail_shared_plan(id, &error, self.epoch.saturating_sub(1));
        }
    }

    /// Every view that reads a shared plan notes the rows that it could not use.
    fn note_shared(&mut self, id: RelationId, rejects: &StepRejects) {
        if rejects.count == 0 {
            return;
        }
        for reader in self.views_over(id) {
            if let Some(State::View(view)) = self.states.get_mut(&reader) {
                view.note(&self.rejects, rejects.clone(), self.epoch, self.now_ms);
            }
        }
    }

    /// A shared plan with those that read it, directly or not.
    fn plans_over(&self, id: RelationId) -> BTreeSet<RelationId> {
        let mut plans = BTreeSet::from([id]);
        // Who reads a plan comes after it.
        for plan in &self.shared.plans {
            if plan.query.shared().any(|(_, read)| plans.contains(&read)) {
                plans.insert(plan.id);
            }
        }
        plans
    }

    /// The views that read a shared plan, directly or not.
    fn views_over(&self, id: RelationId) -> Vec<RelationId> {
        let plans = self.plans_over(id);
        let reads = |view: &View| view.query.shared().any(|(_, read)| plans.contains(&read));
        let views = self.states.iter().filter_map(|(id, state)| Some((*id, state.view()?)));
        views.filter(|(_, view)| reads(view)).map(|(id, _)| id).collect()
    }

    /// Sets aside whoever reads a shared plan; `last` is the last epoch that views have.
    pub(super) fn fail_shared_plan(&mut self, id: RelationId, error: &Error, last: Epoch) {
        let plans = self.plans_over(id);
        let reads = |s: &mut Subscriber| s.query.shared().any(|(_, read)| plans.contains(&read));
        for subscriber in self.subscribers.extract_if(.., reads) {
            subscriber.end(match error {
                Error::MemoryLimit { limit, .. } => End::OutOfMemory(*limit),
                other => End::Failed(other.to_string()),
            });
        }
        for reader in self.views_over(id) {
            let relation = self.catalog.by_id(reader).map(|r| r.name.clone()).unwrap_or_default();
            match error {
                Error::MemoryLimit { limit, .. } => {
                    self.fail_view(reader, &Error::MemoryLimit { relation, limit: *limit }, last);
                }
                other => self.fail_view(reader, other, last),
            }
        }
        self.release_shared_plans();
    }

    /// The shared plans that views read, directly or not.
    pub(super) fn plans_of_views(&self) -> BTreeSet<RelationId> {
        self.shared.read(self.states.values().filter_map(State::view).map(|view| &view.query))
    }

    /// Lets the shared plans go that nobody reads any more.
    pub(super) fn release_shared_plans(&mut self) {
        if self.shared.plans.is_empty() {
            return;
        }
        let queries = self.states.values().filter_map(State::view).map(|view| &view.query);
        let read = self.shared.read(queries.chain(self.subscribers.iter().map(|s| &s.query)));
        let gone = self.shared.plans.extract_if(.., |plan| !read.contains(&plan.id));
        gone.for_each(|plan| self.memory.forget(plan.id));
    }
}
