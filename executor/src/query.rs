//! One running query: its operators in order, stepped once for each epoch.
//!
//! Invariant: `step` is a pure function of its state and the epoch's changes.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray};
use datafusion::arrow::compute::{cast, not};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use planner::{Dataflow, NodeId, NodeKind, PlanIdentity, Relation, RelationId};

use crate::build::operator;
use crate::change::{ChangeBatch, consolidate};
use crate::engine::with_values;
use crate::error::{Error, Result};
use crate::layout::batch_of;
use crate::operator::{Changes, Operator};
use crate::rejects::StepRejects;
use crate::state::{Image, StateReader};
use crate::table::TableStore;

/// The changes of relations in one epoch, each in its relation's full layout; of shared plans, in that of their
/// result.
pub(crate) type EpochChanges = HashMap<RelationId, Arc<Changes>>;

/// A running query, or a part of one (`part.rs`).
pub struct Query {
    pub(crate) dataflow: Arc<Dataflow>,
    /// The node whose rows are its result.
    pub(crate) root: NodeId,
    /// The nodes it steps, inputs first.
    pub(crate) order: Vec<NodeId>,
    /// Where the changes of each node come from.
    pub(crate) slots: Vec<Slot>,
    /// How many nodes read each node.
    pub(crate) readers: Vec<usize>,
    /// The relations it reads.
    pub(crate) sources: Vec<RelationId>,
    timed: bool,
    schema: SchemaRef,
    /// The result's changes need no consolidation.
    pub(crate) net: bool,
    pub(crate) shards: usize,
    /// Of a whole query; nobody asks a part for it.
    fingerprint: u64,
    /// What each node has done.
    pub(crate) work: Vec<Work>,
    /// Rows of the result that the last step touched and left as they are, where they are wanted: by which node,
    /// and what they were.
    touched: Option<(NodeId, Changes)>,
}

/// Where the changes of a node come from.
pub(crate) enum Slot {
    /// A relation or the clock; or nobody reads it.
    None,
    /// This operator.
    Own(Box<dyn Operator>),
    /// A plan that several queries read.
    Shared(RelationId),
}

impl Slot {
    pub(crate) fn operator(&self) -> Option<&dyn Operator> {
        match self {
            Self::Own(operator) => Some(operator.as_ref()),
            _ => None,
        }
    }

    fn operator_mut(&mut self) -> Option<&mut Box<dyn Operator>> {
        match self {
            Self::Own(operator) => Some(operator),
            _ => None,
        }
    }
}

/// What a node has done so far. Measured beside the step: nothing in it depends on the clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Work {
    rows_out: u64,
    rows_retracted: u64,
    busy: Duration,
}

/// How an operator of a running query does, in the order of [`Dataflow::nodes`].
#[derive(Debug, Clone, Copy, Default)]
pub struct OperatorStatus {
    /// Rows its result changed by.
    pub rows_out: u64,
    /// Those of them that were taken back.
    pub rows_retracted: u64,
    /// Time spent in it, microseconds.
    pub busy_us: u64,
    /// Bytes of its state.
    pub state_bytes: usize,
    /// It works for other queries too.
    pub shared: bool,
}

impl Query {
    /// Builds the operators of a dataflow with their state empty.
    ///
    /// # Errors
    /// Expressions that do not compile.
    pub fn try_new(dataflow: Arc<Dataflow>, shards: usize) -> Result<Self> {
        let order: Vec<NodeId> = (0..dataflow.nodes.len()).collect();
        let mut query = Self::empty(Arc::clone(&dataflow), dataflow.root, order, shards);
        (query.net, query.fingerprint) = (dataflow.is_net(), fingerprint(&dataflow));
        for id in 0..query.slots.len() {
            query.slots[id] = query.built(id)?;
        }
        query.count_readers();
        Ok(query)
    }

    /// A query without operators whose result is a node's; `order` is what is below it, inputs first.
    pub(crate) fn empty(dataflow: Arc<Dataflow>, root: NodeId, order: Vec<NodeId>, shards: usize) -> Self {
        let nodes = dataflow.nodes.len();
        Self {
            root,
            slots: (0..nodes).map(|_| Slot::None).collect(),
            readers: vec![0; nodes],
            sources: dataflow.relations_below(root).map(|relation| relation.id).collect(),
            timed: dataflow.is_timed_below(root),
            schema: Arc::clone(dataflow.nodes[root].schema.inner()),
            net: true,
            shards,
            fingerprint: 0,
            work: vec![Work::default(); nodes],
            touched: None,
            order,
            dataflow,
        }
    }

    /// The operator of a node, without state.
    pub(crate) fn built(&self, id: NodeId) -> Result<Slot> {
        let built = operator(&self.dataflow, &self.dataflow.nodes[id], self.shards)?;
        Ok(built.map_or(Slot::None, Slot::Own))
    }

    /// Counts who reads each node of those that are stepped.
    pub(crate) fn count_readers(&mut self) {
        self.readers.fill(0);
        for id in self.order.iter().filter(|id| !matches!(self.slots[**id], Slot::Shared(_))) {
            self.dataflow.nodes[*id].inputs.iter().for_each(|input| self.readers[*input] += 1);
        }
    }

    /// What it runs.
    pub fn dataflow(&self) -> &Arc<Dataflow> {
        &self.dataflow
    }

    /// The relations it reads, each once.
    pub(crate) fn sources(&self) -> &[RelationId] {
        &self.sources
    }

    /// Whether an epoch changes its result, by what it reads or by its time.
    pub(crate) fn is_touched(&self, changes: &EpochChanges, now_ms: i64) -> bool {
        self.sources.iter().any(|source| changes.contains_key(source))
            || self.shared().any(|(_, plan)| changes.contains_key(&plan))
            || self.due_ms().is_some_and(|due| due <= now_ms)
    }

    /// Whether its result changes as time passes.
    pub(crate) fn is_timed(&self) -> bool {
        self.timed
    }

    /// When its result changes without a change of what it reads, ms since 1970.
    pub(crate) fn due_ms(&self) -> Option<i64> {
        if self.timed { self.operators().filter_map(|o| o.due_ms()).min() } else { None }
    }

    /// Whether a window with grace decides by the order of epochs.
    pub(crate) fn needs_epochs(&self) -> bool {
        self.dataflow.nodes.iter().any(|n| match &n.kind {
            NodeKind::Window { spec, .. } => spec.grace_ms.is_some(),
            NodeKind::SessionAggregate { spec, .. } => spec.grace_ms.is_some(),
            NodeKind::Join { within, .. } => within.is_some(),
            _ => false,
        })
    }

    /// The net change of the result in one epoch. A panic becomes an error.
    ///
    /// # Errors
    /// [`Error::Bug`]; the query's state is then unusable.
    pub(crate) fn step(
        &mut self,
        changes: &EpochChanges,
        now_ms: i64,
        rejects: &mut StepRejects,
    ) -> Result<Changes> {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.run(changes, now_ms, rejects)));
        stepped.unwrap_or_else(|panic| {
            let message = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            Err(Error::bug("an operator", message))
        })
    }

    fn run(&mut self, changes: &EpochChanges, now_ms: i64, rejects: &mut StepRejects) -> Result<Changes> {
        let mut readers = self.readers.clone();
        let mut outputs: Vec<Option<Changes>> = vec![None; self.slots.len()];
        for id in &self.order {
            let (node, work) = (&self.dataflow.nodes[*id], &mut self.work[*id]);
            let started = Instant::now();
            let output = match (&node.kind, &mut self.slots[*id]) {
                (_, Slot::Shared(plan)) => {
                    outputs[*id] = Some(changes.get(plan).map_or_else(Changes::new, |new| new.to_vec()));
                    continue;
                }
                (NodeKind::Source { relation, columns }, _) => {
                    source(changes.get(&relation.id), relation, columns, node.schema.inner())?
                }
                (NodeKind::Now, _) => vec![clock(now_ms, node.schema.inner())?],
                (_, Slot::Own(operator)) => {
                    let mut input = |i: usize| {
                        readers[i] -= 1;
                        let output = if readers[i] == 0 { outputs[i].take() } else { outputs[i].clone() };
                        output.unwrap_or_default()
                    };
                    let inputs = node.inputs.iter().map(|i| input(*i)).collect();
                    operator.step(inputs, rejects)?
                }
                (_, Slot::None) => return Err(Error::bug("query", "a node without an operator")),
            };
            work.busy += started.elapsed();
            work.rows_out += output.iter().map(|b| b.len() as u64).sum::<u64>();
            work.rows_retracted += output.iter().map(ChangeBatch::retracted).sum::<u64>();
            outputs[*id] = Some(output);
        }
        let mut result = outputs[self.root].take().unwrap_or_default();
        result.retain(|b| !b.is_empty());
        if let Some((_, touched)) = &mut self.touched {
            (result, *touched) = apart(result)?;
        }
        if self.net {
            return Ok(result);
        }
        let schema = self.result_schema(&result);
        let Some((_, touched)) = &mut self.touched else { return consolidate(&schema, result) };
        // What a projection made equal again was touched too.
        let net = consolidate(&schema, result.clone())?;
        if rows(&net) < rows(&result) {
            for batch in &result {
                touched.push(as_touched(batch)?);
            }
        }
        Ok(net)
    }

    /// From now on [`Self::take_touched`] has the groups that a step touched and left as they are, if what comes
    /// behind the groups goes row by row.
    pub(crate) fn tell_touched(&mut self) {
        let mut at = self.root;
        while self.readers[at] <= 1 {
            let node = &self.dataflow.nodes[at];
            match &node.kind {
                NodeKind::Project(_) | NodeKind::Filter(_) => at = node.inputs[0],
                kind if is_grouping(kind) => {
                    if let Some(operator) = self.slots.get_mut(at).and_then(Slot::operator_mut) {
                        operator.tell_touched();
                    }
                    self.touched = Some((at, Changes::new()));
                    return;
                }
                _ => return,
            }
        }
    }

    /// What a node could do for other queries too. What comes of touched groups is not what it is for others.
    pub(crate) fn identity(&self, node: NodeId) -> Option<PlanIdentity> {
        let identity = self.dataflow.identities()[node]?;
        let told = self.touched.as_ref().is_some_and(|(at, _)| self.dataflow.below(node).contains(at));
        (!told).then_some(identity)
    }

    /// The rows of the result that the last step touched and left as they are.
    pub(crate) fn take_touched(&mut self) -> Changes {
        self.touched.as_mut().map(|(_, touched)| std::mem::take(touched)).unwrap_or_default()
    }

    /// Lets operators look rows up in tables that others keep; `table` gives a relation's. All of the
    /// tables' changes up to here have been stepped.
    pub(crate) fn look_up_in(&mut self, table: impl Fn(RelationId) -> Option<TableStore>) {
        let dataflow = Arc::clone(&self.dataflow);
        for (node, slot) in dataflow.nodes.iter().zip(&mut self.slots) {
            let Some(operator) = slot.operator_mut() else { continue };
            let Some(shared) = dataflow.shared_side(node) else { continue };
            if let Some(table) = table(shared.relation.id) {
                operator.share(&table, placed(&shared.relation, &shared.columns, table.width()));
            }
        }
    }

    /// The layout the rows really have: nullability may differ from the plan's.
    fn result_schema(&self, result: &Changes) -> SchemaRef {
        result.first().map_or_else(|| Arc::clone(&self.schema), |b| b.rows.schema())
    }

    /// In how many parts operators keep their state.
    pub(crate) fn shards(&self) -> usize {
        self.shards
    }

    /// What its state belongs to: a query with another one has another state.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Its operators, in the order in which it steps them.
    fn operators(&self) -> impl Iterator<Item = &dyn Operator> {
        self.order.iter().filter_map(|id| self.slots[*id].operator())
    }

    /// Copies the state of all operators.
    pub(crate) fn save(&self, image: &mut Image) {
        self.operators().for_each(|operator| operator.save(image));
    }

    /// Takes the state back that a query with the same fingerprint saved.
    pub(crate) fn load(&mut self, state: &mut StateReader<'_>) -> Result<()> {
        let own = |id: &NodeId| self.slots[*id].operator_mut().map_or(Ok(()), |o| o.load(state));
        self.order.iter().try_for_each(own)
    }

    /// Takes up the count of what operators have done: rows, rows taken back, microseconds.
    pub(crate) fn has_done(&mut self, work: &[(u64, u64, u64)]) {
        for (own, (rows_out, rows_retracted, busy_us)) in self.work.iter_mut().zip(work) {
            let busy = Duration::from_micros(*busy_us);
            *own = Work { rows_out: *rows_out, rows_retracted: *rows_retracted, busy };
        }
    }

    /// Bytes of the state of all operators.
    pub(crate) fn state_bytes(&self) -> usize {
        self.operators().map(|operator| operator.state_bytes()).sum()
    }

    /// Lets the state go: the query will not be stepped again.
    pub(crate) fn release(&mut self) {
        self.order.clear();
        self.slots.clear();
    }

    /// Writes down how each operator does.
    pub(crate) fn report(&self, into: &mut Vec<OperatorStatus>) {
        let status = |(work, slot): (&Work, &Slot)| OperatorStatus {
            rows_out: work.rows_out,
            rows_retracted: work.rows_retracted,
            busy_us: u64::try_from(work.busy.as_micros()).unwrap_or(u64::MAX),
            state_bytes: slot.operator().map_or(0, |o| o.state_bytes()),
            shared: false,
        };
        into.clear();
        into.extend(self.work.iter().zip(&self.slots).map(status));
    }
}

/// Whether a node gives one row for each group.
fn is_grouping(kind: &NodeKind) -> bool {
    match kind {
        NodeKind::Aggregate { .. } => true,
        NodeKind::Recompute { fragment, .. } => match fragment.as_ref() {
            LogicalPlan::Projection(projection) => matches!(*projection.input, LogicalPlan::Aggregate(_)),
            plan => matches!(plan, LogicalPlan::Aggregate(_)),
        },
        _ => false,
    }
}

fn rows(changes: &Changes) -> usize {
    changes.iter().map(ChangeBatch::len).sum()
}

/// The rows that came, with weight 0.
fn as_touched(batch: &ChangeBatch) -> Result<ChangeBatch> {
    let came: BooleanArray = (0..batch.len()).map(|row| Some(batch.weight(row) > 0)).collect();
    let rows = batch.filter(&came)?.rows;
    let none = Int64Array::from_value(0, rows.num_rows());
    Ok(ChangeBatch::weighted(rows, none))
}

/// Changes, and rows with weight 0.
fn apart(all: Changes) -> Result<(Changes, Changes)> {
    let (mut changes, mut touched) = (Changes::new(), Changes::new());
    for batch in all {
        let Some(weights) = batch.weights.as_ref().filter(|weights| weights.values().contains(&0)) else {
            changes.push(batch);
            continue;
        };
        let none: BooleanArray = weights.values().iter().map(|weight| Some(*weight == 0)).collect();
        changes.push(batch.filter(&not(&none)?)?);
        touched.push(batch.filter(&none)?);
    }
    changes.retain(|batch| !batch.is_empty());
    Ok((changes, touched))
}

/// The time of an epoch as a row.
fn clock(now_ms: i64, schema: &SchemaRef) -> Result<ChangeBatch> {
    let now = TimestampMillisecondArray::from(vec![now_ms]);
    let now = cast(&now, schema.field(0).data_type())?;
    Ok(ChangeBatch::inserted(RecordBatch::try_new(Arc::clone(schema), vec![now])?))
}

/// The columns of a relation's changes that a query reads; rows without a value if it reads their mark.
fn source(
    changes: Option<&Arc<Changes>>,
    relation: &Relation,
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<Changes> {
    let Some(changes) = changes else { return Ok(Vec::new()) };
    changes
        .iter()
        .map(|batch| {
            let columns = &placed(relation, columns, batch.rows.num_columns())[..];
            let passes = batch.rows.num_columns().checked_sub(1).is_some_and(|mark| columns.contains(&mark));
            if relation.marks_valueless() && !passes {
                // Rows of streams have no weights.
                let rows = with_values(relation, &batch.rows)?;
                return columns_of(&ChangeBatch::inserted(rows), columns, schema);
            }
            columns_of(batch, columns, schema)
        })
        .collect()
}

/// Where columns of a relation as a plan knows it are in rows of so many columns.
fn placed(relation: &Relation, columns: &[usize], width: usize) -> Vec<usize> {
    columns.iter().map(|column| relation.place(*column, width)).collect()
}

fn columns_of(batch: &ChangeBatch, columns: &[usize], schema: &SchemaRef) -> Result<ChangeBatch> {
    let arrays = columns.iter().map(|c| Arc::clone(batch.rows.column(*c))).collect();
    let rows = batch_of(schema, arrays, batch.len())?;
    Ok(ChangeBatch { rows, weights: batch.weights.clone() })
}

/// Of everything in a dataflow that its state depends on.
pub(crate) fn fingerprint(dataflow: &Dataflow) -> u64 {
    let mut text = planner::explain(dataflow);
    for (id, node) in dataflow.nodes.iter().enumerate() {
        let (name, grows) = (node.kind.name(), dataflow.append_only_at(id));
        text.push_str(&format!("{name} {:?} {grows} {:?}\n", node.inputs, node.schema.inner()));
    }
    crate::keys::hash(text.as_bytes())
}
