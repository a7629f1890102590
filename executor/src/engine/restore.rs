//! The engine out of a checkpoint.
//!
//! Invariant: what is restored is what was captured; what does not fit (damage, records that the log has
//! lost) makes the checkpoint unusable as a whole, and the one before it is tried. A view whose plan is
//! another one now keeps its rows, and its state is computed again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use planner::{Catalog, Relation, RelationId};
use rayon::prelude::*;
use storage::checkpoint::{CheckpointStore, Manifest};
use storage::log::{Log, TopicPartition};

use super::budget::Budget;
use super::checkpoint::{HEAD, Head, REJECTS, SharedHead, ViewHead, rows_section, state_section};
use super::recovery::{Event, Live, last_epochs};
use super::relations::{State, new_base};
use super::shared_plans::SharedPlan;
use super::step::Stepper;
use super::topics::TopicEnds;
use super::view::View;
use crate::error::{Error, Result};
use crate::query::{Query, fingerprint};
use crate::state::{LAYOUT, StateReader};

/// A checkpoint that is read.
struct Source<'a> {
    store: &'a CheckpointStore,
    manifest: &'a Manifest,
}

impl Source<'_> {
    fn section(&self, name: &str) -> StateReader<'static> {
        StateReader::new(self.store.section(self.manifest, name))
    }

    /// How long it is.
    fn bytes(&self, name: &str) -> u64 {
        self.manifest.section_bytes(name)
    }

    fn head(&self) -> Result<Head> {
        let mut bytes = Vec::new();
        for page in self.store.section(self.manifest, HEAD) {
            bytes.extend(page?);
        }
        let head: Head = serde_json::from_slice(&bytes).map_err(|e| unusable(e.to_string()))?;
        if head.layout != LAYOUT {
            return Err(unusable(format!("its layout is {}, this version reads {LAYOUT}", head.layout)));
        }
        Ok(head)
    }
}

fn unusable(reason: impl Into<String>) -> Error {
    Error::bug("checkpoint", reason)
}

/// The last entry of the journal that a checkpoint knows of; 0 without one that can be read.
pub(super) fn known_revision(store: &CheckpointStore) -> u64 {
    // The newest comes first, and knows of most.
    let mut heads = store.manifests().iter().map(|manifest| Source { store, manifest }.head());
    heads.find_map(Result::ok).map_or(0, |head| head.revision)
}

/// Brings a new stepper to where a checkpoint was; `live` is what the journal says.
pub(super) fn restore(
    stepper: &mut Stepper,
    store: &CheckpointStore,
    manifest: &Manifest,
    live: &[Live],
    log: &Arc<dyn Log>,
) -> Result<()> {
    let source = Source { store, manifest };
    let head = source.head()?;
    let mut catalog = Catalog::default();
    for entry in live.iter().filter(|entry| entry.revision <= head.revision) {
        match &entry.event {
            Event::Create(relation) | Event::Replace(relation)
                if head.relations.contains_key(&relation.id) =>
            {
                catalog = catalog.with(Arc::clone(relation));
            }
            Event::Rename(id, name) => catalog = catalog.renamed(*id, name),
            Event::Topic(topic) => catalog = catalog.with_topic(topic.clone()),
            _ => {}
        }
    }
    for (name, partitions) in head.topics.iter().filter(|(name, _)| catalog.topic(name).is_some()) {
        let mut ends = TopicEnds { partitions: partitions.clone(), damage: None };
        check_log(&mut ends, &catalog, log)?;
        stepper.topics.insert(name.clone(), Arc::new(ends));
    }
    stepper.set_catalog(catalog)?;
    (stepper.revision, stepper.ticks) = (head.revision, head.ticks);
    stepper.begin_at(head.epoch, head.now_ms);
    let relations: Vec<Arc<Relation>> = stepper.catalog().iter().cloned().collect();
    let memory_limit = stepper.memory_limit;
    let shared = restored_plans(&source, &relations, &head, memory_limit)?;
    let there: BTreeSet<RelationId> = shared.iter().map(|plan| plan.id).collect();
    stepper.shared.restore(shared);
    let heads = relations.par_iter().map(|relation| (relation, head.relations.get(&relation.id)));
    let of_relation = |(relation, head): (&Arc<Relation>, Option<&Option<ViewHead>>)| match head {
        Some(Some(head)) => {
            let whole = head.shared.iter().all(|(_, plan)| there.contains(plan));
            restored_view(&source, relation, head, whole, (log, memory_limit))
        }
        _ => Ok((restored_base(&source, relation)?, true)),
    };
    let states: Vec<(State, bool)> = heads.map(of_relation).collect::<Result<_>>()?;
    let mut changed = Vec::new();
    for (relation, (state, fits)) in relations.iter().zip(states) {
        stepper.put(relation.id, state);
        if !fits {
            changed.push(Arc::clone(relation));
        }
    }
    relations.iter().for_each(|relation| stepper.share_tables(relation.id));
    stepper.place_shared_plans();
    stepper.rejects().decode(&source.section(REJECTS).bytes()?, head.rejected)?;
    changed.iter().for_each(|relation| compute_again(stepper, relation));
    Ok(())
}

/// Makes sure that the log has everything that the checkpoint counts on. Records that were written by statements are
/// there, or else their topic is damaged, and not the checkpoint.
fn check_log(ends: &mut TopicEnds, catalog: &Catalog, log: &Arc<dyn Log>) -> Result<()> {
    let partitions = ends.partitions.clone();
    for (number, partition) in (0u32..).zip(&partitions) {
        for part in &partition.parts {
            let at = TopicPartition { topic: part.log_name.to_string(), partition: number };
            let there = match log.bounds(&at) {
                Ok(there) => there,
                Err(error) => {
                    ends.take_damage(error)?;
                    continue;
                }
            };
            if there.end < part.end && catalog.by_id(part.relation).is_some_and(|r| r.is_base()) {
                let path = Path::new(&*part.log_name).join(number.to_string());
                let reason = format!("its records end at offset {}, and went to {}", there.end, part.end);
                ends.take_damage(storage::Error::Corrupt { path, position: 0, reason })?;
                continue;
            }
            if there.end < part.end || there.start > part.end {
                return Err(unusable(format!(
                    "topic \"{}\" has the offsets {}..{}, and should go to {}",
                    part.log_name, there.start, there.end, part.end
                )));
            }
        }
    }
    Ok(())
}

fn load_rows(
    source: &Source<'_>,
    relation: &Relation,
    load: impl FnOnce(&mut StateReader<'_>) -> Result<()>,
) -> Result<()> {
    let mut rows = source.section(&rows_section(relation.id));
    load(&mut rows)?;
    rows.finish()
}

fn restored_base(source: &Source<'_>, relation: &Arc<Relation>) -> Result<State> {
    if !relation.is_base() {
        return Ok(State::Expanded);
    }
    let state = new_base(relation)?;
    if let Some(store) = state.store() {
        load_rows(source, relation, |rows| store.load(rows))?;
    }
    Ok(state)
}

/// The shared plans of views whose plans are the ones that there were.
fn restored_plans(
    source: &Source<'_>,
    relations: &[Arc<Relation>],
    head: &Head,
    memory_limit: Option<u64>,
) -> Result<Vec<SharedPlan>> {
    let views = relations.iter().filter_map(|relation| {
        let (view, dataflow) = (head.relations.get(&relation.id)?.as_ref()?, relation.dataflow()?);
        let same = !view.shared.is_empty() && fingerprint(dataflow) == view.fingerprint;
        same.then_some((view, relation, dataflow))
    });
    let views: Vec<_> = views.collect();
    let restored = |plan: &SharedHead| {
        let read = |view: &ViewHead| view.shared.iter().find(|(_, id)| *id == plan.id).map(|(node, _)| *node);
        let found =
            views.iter().find_map(|(view, relation, dataflow)| Some((read(view)?, view, relation, dataflow)));
        let Some((node, view, relation, dataflow)) = found else { return Ok(None) };
        let mut query = Query::new_part(dataflow, node, plan.shards, &view.shared)?;
        let section = state_section(plan.id);
        let mut budget = Budget::new(relation.memory_limit.or(memory_limit));
        budget.prepare(&relation.name, source.bytes(&section));
        let mut state = source.section(&section);
        spill::within(budget.spills(), || query.load(&mut state))?;
        state.finish()?;
        query.has_done(&view.work);
        Ok(Some(SharedPlan::new(plan.id, query)))
    };
    let plans = head.shared.par_iter().filter_map(|plan| restored(plan).transpose());
    plans.collect()
}

/// A view, and whether its plan is the one whose state there is; `whole` says that the shared plans are there
/// that it reads.
fn restored_view(
    source: &Source<'_>,
    relation: &Arc<Relation>,
    head: &ViewHead,
    whole: bool,
    (log, memory_limit): (&Arc<dyn Log>, Option<u64>),
) -> Result<(State, bool)> {
    let dataflow = relation.dataflow().ok_or_else(|| unusable("a view has no query"))?;
    // The state is in as many parts as it was.
    let mut query = Query::try_new(Arc::clone(dataflow), head.shards)?;
    let stands = head.error.is_some() || head.halt.is_some();
    let (rows, state) = (rows_section(relation.id), state_section(relation.id));
    let mut budget = Budget::new(relation.memory_limit.or(memory_limit));
    budget.prepare(&relation.name, source.bytes(&rows) + source.bytes(&state));
    let spills = budget.spills();
    let fits = stands || (query.fingerprint() == head.fingerprint && whole);
    if fits && !stands {
        head.shared.iter().for_each(|(node, plan)| query.read_shared(*node, *plan));
        let mut state = source.section(&state);
        spill::within(spills, || query.load(&mut state))?;
        state.finish()?;
        query.has_done(&head.work);
    }
    let epochs = if relation.has_topic() { last_epochs(log, relation)? } else { Vec::new() };
    let mut view = View::try_new(relation, query, epochs, memory_limit)?;
    (view.budget, view.status.spills) = (budget, spills);
    if let Some(store) = &view.store {
        spill::within(spills, || load_rows(source, relation, |rows| store.load(rows)))?;
    }
    view.measure();
    let status = &mut view.status;
    (status.rows_in, status.rows_out) = (head.rows_in, head.rows_out);
    (status.busy_us, status.rejected) = (head.busy_us, head.rejected);
    (status.halt, status.error, status.over_limit) = (head.halt, head.error.clone(), head.over_limit);
    view.halted_at = head.halted_at;
    // What has no state yet is nothing to share.
    if stands || !fits {
        view.release();
    }
    Ok((State::View(Box::new(view)), fits))
}

/// Computes the state of a view again whose plan has changed; its rows change by the difference, if any.
fn compute_again(stepper: &mut Stepper, relation: &Arc<Relation>) {
    tracing::warn!(relation = %relation.name, "the plan of a query has changed: its state is computed again");
    let lost = relation.dataflow().and_then(|dataflow| stepper.lost_history(dataflow));
    let made = match lost {
        Some(stream) => Err(Error::LostHistory { stream }),
        None => stepper.rejoin(relation),
    };
    if let Err(error) = made {
        stepper.fail_view(relation.id, &error, stepper.epoch());
    }
}
