//! In which order an epoch goes through relations.
//!
//! A query comes after what it reads; the rows of a relation come after every query that writes to its
//! topic. What has the same level does not read each other. Invariant: computed anew from the catalog
//! whenever it changes, which has no cycles: the planner refuses them.

use std::collections::{BTreeMap, HashMap, HashSet};

use planner::{Catalog, Relation, RelationId};

/// The order.
#[derive(Debug, Clone, Default)]
pub(super) struct Flow {
    /// Levels of queries, from 1.
    queries: HashMap<RelationId, usize>,
    /// Levels of the topics that queries write to: that of the last one.
    written: HashMap<String, usize>,
    /// Topics by their level.
    topics: BTreeMap<usize, Vec<Delivery>>,
    /// Relations that queries read.
    read: HashSet<RelationId>,
    pub(super) deepest: usize,
}

/// A topic and the relations whose rows are its records.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) topic: String,
    pub(super) relations: Vec<RelationId>,
}

/// Whether the rows of a relation are what is in its topic, whoever wrote it. A table's that a query
/// keeps are the query's.
fn is_fed(relation: &Relation) -> bool {
    relation.has_topic() && (relation.is_base() || relation.is_stream()) && relation.target.is_none()
}

impl Flow {
    pub(super) fn of(catalog: &Catalog) -> Self {
        let mut flow = Self::default();
        let queries: Vec<_> = catalog.iter().filter(|r| r.dataflow().is_some()).collect();
        // Levels only grow, and no path is longer than there are relations.
        for _ in 0..=queries.len() {
            let mut changed = false;
            for query in &queries {
                let level = flow.level_over(catalog, &query.sources());
                changed |= flow.queries.insert(query.id, level) != Some(level);
                if query.has_topic() {
                    let topic = flow.written.entry(query.topic.name.clone()).or_default();
                    *topic = level.max(*topic);
                }
            }
            if !changed {
                break;
            }
        }
        for topic in catalog.topics() {
            let fed = catalog.on_topic(topic).filter(|r| is_fed(r));
            let delivery = Delivery { topic: topic.name.clone(), relations: fed.map(|r| r.id).collect() };
            let level = flow.written.get(&topic.name).copied().unwrap_or(0);
            flow.topics.entry(level).or_default().push(delivery);
        }
        flow.read = queries.iter().flat_map(|query| query.sources()).collect();
        flow.deepest = flow.queries.values().copied().max().unwrap_or(0);
        flow
    }

    /// The level of a query that reads these relations.
    pub(super) fn level_over(&self, catalog: &Catalog, sources: &[RelationId]) -> usize {
        1 + sources.iter().map(|id| self.level(catalog, *id)).max().unwrap_or(0)
    }

    /// The level at which a relation's rows are there.
    fn level(&self, catalog: &Catalog, id: RelationId) -> usize {
        match catalog.by_id(id) {
            Some(relation) if is_fed(relation) => {
                self.written.get(&relation.topic.name).copied().unwrap_or(0)
            }
            _ => self.query(id),
        }
    }

    pub(super) fn is_read(&self, id: RelationId) -> bool {
        self.read.contains(&id)
    }

    /// The level of a query.
    pub(super) fn query(&self, id: RelationId) -> usize {
        self.queries.get(&id).copied().unwrap_or(0)
    }

    /// What is delivered once the queries of a level are done.
    pub(super) fn deliveries(&self, level: usize) -> &[Delivery] {
        self.topics.get(&level).map_or(&[], Vec::as_slice)
    }
}
