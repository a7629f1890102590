//! Runs a piece of a batch plan over rows that an operator holds.
//!
//! Invariant: one partition, nothing spawned, nothing read: the same rows give the same result, and
//! the calling thread does all the work.

use std::fmt;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::session_state::SessionState;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, execute_stream,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::TryStreamExt;
use parking_lot::Mutex;
use planner::RowsInput;

use crate::error::{Error, Result};
use crate::layout::{batch_of, nullable};

/// Functions and options of fragments.
static STATE: LazyLock<SessionState> = LazyLock::new(|| planner::session_state(1));

/// How often a recursion may bring rows, and how many: it runs between two epochs.
const MOST_STEPS: usize = 100_000;
const MOST_ROWS: usize = 10_000_000;

/// The rows a fragment is to read next.
type Slot = Arc<Mutex<Vec<RecordBatch>>>;

/// A compiled fragment.
pub(crate) struct Fragment {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    input: SchemaRef,
    slot: Slot,
    /// Its result may have no end.
    recursive: bool,
}

impl Fragment {
    pub(crate) fn compile(plan: &LogicalPlan) -> Result<Self> {
        let mut leaf = plan;
        while let Some(below) = leaf.inputs().first() {
            leaf = below;
        }
        let input = nullable(leaf.schema().as_arrow());
        let slot = Slot::default();
        let leaf = Leaf { slot: Arc::clone(&slot), schema: Arc::clone(&input) };
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(leaf)]);
        let physical = futures::executor::block_on(planner.create_physical_plan(plan, &*STATE))?;
        let recursive = matches!(plan, LogicalPlan::RecursiveQuery(_));
        Ok(Self { plan: physical, context: STATE.task_ctx(), input, slot, recursive })
    }

    /// The layout of the rows it reads.
    pub(crate) fn input(&self) -> &SchemaRef {
        &self.input
    }

    /// The fragment's result over `rows`, in the layout `schema`.
    pub(crate) fn run(&self, rows: RecordBatch, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        *self.slot.lock() = vec![rows];
        let plan = reset_plan_states(Arc::clone(&self.plan))?;
        let mut stream = execute_stream(plan, Arc::clone(&self.context))?;
        let (mut batches, mut count) = (Vec::new(), 0);
        while let Some(batch) = futures::executor::block_on(stream.try_next())? {
            count += batch.num_rows();
            batches.push(batch_of(schema, batch.columns().to_vec(), batch.num_rows())?);
            if self.recursive && (batches.len() > MOST_STEPS || count > MOST_ROWS) {
                return Err(Error::EndlessRecursion { steps: batches.len(), rows: count });
            }
        }
        self.slot.lock().clear();
        Ok(batches)
    }
}

/// Plans a fragment's leaf.
struct Leaf {
    slot: Slot,
    schema: SchemaRef,
}

#[async_trait]
impl ExtensionPlanner for Leaf {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        _: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> datafusion::common::Result<Option<Arc<dyn ExecutionPlan>>> {
        if !node.as_any().is::<RowsInput>() {
            return Ok(None);
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&self.schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Some(Arc::new(SlotExec {
            slot: Arc::clone(&self.slot),
            schema: Arc::clone(&self.schema),
            properties: Arc::new(properties),
        })))
    }
}

/// Reads the rows in a slot.
#[derive(Debug)]
struct SlotExec {
    slot: Slot,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlotExec")
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &'static str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> datafusion::common::Result<TreeNodeRecursion>,
    ) -> datafusion::common::Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(
        &self,
        _: usize,
        _: Arc<TaskContext>,
    ) -> datafusion::common::Result<SendableRecordBatchStream> {
        let batches: Vec<datafusion::common::Result<RecordBatch>> =
            self.slot.lock().iter().cloned().map(Ok).collect();
        let rows = futures::stream::iter(batches);
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}
