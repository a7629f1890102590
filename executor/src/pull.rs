//! A question answered once: the plan's relations replaced by their rows at one epoch, the rest
//! is DataFusion's.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::{QueryPlanner, SessionState};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, execute_stream,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use futures::StreamExt;
use futures::future::BoxFuture;
use planner::{RelationSource, WindowAssign, WindowSpec};

use crate::engine::Snapshot;
use crate::error::Result;
use crate::held_rows::account_for;
use crate::layout::nullable;
use crate::opaque::{hide_order, plan_opaque};
use crate::table::{StreamProvider, TableProviderAt};
use crate::window;

/// A running answer.
pub struct Answer {
    /// The layout of its rows.
    pub schema: SchemaRef,
    /// Its rows.
    pub rows: SendableRecordBatchStream,
}

/// Answers questions at one epoch.
pub struct PullContext {
    /// What there is.
    pub snapshot: Arc<Snapshot>,
    /// Functions and options.
    pub state: SessionState,
}

impl PullContext {
    /// Starts answering a bound plan, optimised or not.
    ///
    /// # Errors
    /// What planning or the start of execution finds; a query that has failed.
    pub fn answer(&self, plan: LogicalPlan) -> BoxFuture<'_, Result<Answer>> {
        // Boxed, so that its code is here and not in every crate that asks.
        Box::pin(self.start(plan))
    }

    async fn start(&self, plan: LogicalPlan) -> Result<Answer> {
        let plan = self.with_rows(plan)?;
        let state = SessionStateBuilder::new_from_existing(self.state.clone())
            .with_query_planner(Arc::new(Planner))
            .build();
        let optimized = hide_order(state.optimize(&plan)?)?;
        let schema: SchemaRef = Arc::new(optimized.schema().as_arrow().clone());
        let physical = account_for(state.query_planner().create_physical_plan(&optimized, &state).await?)?;
        let rows = execute_stream(physical, state.task_ctx())?;
        Ok(Answer { schema, rows })
    }

    /// The optimised plan of a question, for EXPLAIN.
    ///
    /// # Errors
    /// What planning finds.
    pub fn optimized(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        Ok(self.state.optimize(&self.with_rows(plan)?)?)
    }

    /// Puts the rows of this epoch in the place of relations, also inside subqueries, and plans that
    /// DataFusion knows in the place of sessions.
    fn with_rows(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let mut failed = None;
        let replaced = plan.transform_down_with_subqueries(|node| {
            let LogicalPlan::TableScan(mut scan) = node else { return Ok(Transformed::no(node)) };
            let source: &dyn std::any::Any = scan.source.as_ref();
            let Some(source) = source.downcast_ref::<RelationSource>() else {
                return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
            };
            match self.provider(source) {
                Ok(provider) => {
                    scan.source = provider_as_source(provider);
                    Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
                }
                Err(error) => {
                    failed = Some(error);
                    Ok(Transformed::new(LogicalPlan::TableScan(scan), false, TreeNodeRecursion::Stop))
                }
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(planner::expand_sessions(replaced.data)?),
        }
    }

    fn provider(&self, source: &RelationSource) -> Result<Arc<dyn datafusion::catalog::TableProvider>> {
        use datafusion::logical_expr::TableSource;
        let schema = nullable(&source.schema());
        // A plain view's plan may know a relation as it was when it had less columns.
        let shown = |width| (0..schema.fields().len()).map(|at| source.relation.place(at, width)).collect();
        if let Some(reader) = self.snapshot.stream(source.relation.id)? {
            let columns = shown(reader.relation.full_schema().fields().len());
            return Ok(Arc::new(StreamProvider { reader: Arc::new(reader), schema, columns }));
        }
        match self.snapshot.table(source.relation.id)? {
            Some(version) => {
                let columns = shown(version.schema().fields().len());
                Ok(Arc::new(TableProviderAt { version: version.clone(), schema, columns }))
            }
            None => Err(crate::Error::Dropped(source.relation.name.clone())),
        }
    }
}

/// DataFusion's planner with our nodes.
#[derive(Debug)]
struct Planner;

#[async_trait]
impl QueryPlanner for Planner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        state: &dyn Session,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Extensions)])
            .create_physical_plan(plan, state)
            .await
    }
}

struct Extensions;

#[async_trait]
impl ExtensionPlanner for Extensions {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        logical: &[&LogicalPlan],
        physical: &[Arc<dyn ExecutionPlan>],
        state: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> datafusion::common::Result<Option<Arc<dyn ExecutionPlan>>> {
        if let Some(opaque) = plan_opaque(node, physical) {
            return Ok(Some(opaque));
        }
        let (Some(window), [input], [input_plan]) =
            (node.as_any().downcast_ref::<WindowAssign>(), physical, logical)
        else {
            return Ok(None);
        };
        let input_schema: &DFSchema = input_plan.schema();
        let time = planner.create_physical_expr(&window.time, input_schema, state, context)?;
        let schema = nullable(&Arc::new(node.schema().as_arrow().clone()));
        Ok(Some(Arc::new(WindowExec::new(Arc::clone(input), time, window.spec, schema))))
    }
}

/// Places the rows of a batch query in windows. A question looks at what is there: nothing is late.
#[derive(Debug)]
struct WindowExec {
    input: Arc<dyn ExecutionPlan>,
    time: Arc<dyn PhysicalExpr>,
    spec: WindowSpec,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl WindowExec {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        time: Arc<dyn PhysicalExpr>,
        spec: WindowSpec,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            input.output_partitioning().clone(),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { input, time, spec, schema, properties: Arc::new(properties) }
    }
}

impl DisplayAs for WindowExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WindowExec: size={}ms advance={}ms", self.spec.size_ms, self.spec.advance_ms)
    }
}

impl ExecutionPlan for WindowExec {
    fn name(&self) -> &'static str {
        "WindowExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> datafusion::common::Result<TreeNodeRecursion>,
    ) -> datafusion::common::Result<TreeNodeRecursion> {
        f(&self.time)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let input =
            children.pop().ok_or_else(|| DataFusionError::Internal("a window has one input".into()))?;
        Ok(Arc::new(Self::new(input, Arc::clone(&self.time), self.spec, Arc::clone(&self.schema))))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> datafusion::common::Result<SendableRecordBatchStream> {
        let (time, spec, schema) = (Arc::clone(&self.time), self.spec, Arc::clone(&self.schema));
        let rows = self.input.execute(partition, context)?.map(move |batch| {
            let batch = batch?;
            let times = time.evaluate(&batch)?.into_array(batch.num_rows())?;
            let external = |e: crate::Error| DataFusionError::External(Box::new(e));
            let times = window::to_ms(&times).map_err(external)?;
            window::place(&spec, &times, |_, _| true).batch(&batch, &schema).map_err(external)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}
