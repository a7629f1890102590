//! A relation as DataFusion's planner sees it: a name with a schema, no data.
//!
//! Plans stay independent of any moment; the executor puts the rows of one epoch in their place.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan, TableProviderFilterPushDown, TableSource, TableType};

use crate::catalog::{Relation, RelationId, RelationKind, ViewQuery};

/// A relation in a logical plan.
#[derive(Debug)]
pub struct RelationSource {
    /// The relation.
    pub relation: Arc<Relation>,
    schema: SchemaRef,
    /// The rows in its place.
    rows: Option<LogicalPlan>,
}

impl RelationSource {
    /// With or without the pseudo-columns.
    pub fn new(relation: Arc<Relation>, pseudo: bool) -> Self {
        let schema = Self::schema_of(&relation, pseudo);
        Self { relation, schema, rows: None }
    }

    /// With a query's rows in its place, which have the same columns.
    pub fn showing(relation: Arc<Relation>, pseudo: bool, rows: LogicalPlan) -> Self {
        Self { rows: Some(rows), ..Self::new(relation, pseudo) }
    }

    /// The layout of such a source.
    pub fn schema_of(relation: &Relation, pseudo: bool) -> SchemaRef {
        if pseudo { relation.full_schema() } else { relation.schema() }
    }

    /// With a layout that begins like the full one.
    pub fn with_schema(relation: Arc<Relation>, schema: SchemaRef) -> Self {
        Self { relation, schema, rows: None }
    }
}

impl TableSource for RelationSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        if self.relation.kind == RelationKind::View { TableType::View } else { TableType::Base }
    }

    /// Every filter is offered to the scan, which may use it to find rows by key, and stays above it.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        if let Some(rows) = &self.rows {
            return Some(Cow::Borrowed(rows));
        }
        match &self.relation.query {
            Some(ViewQuery::Expanded { plan, .. }) => Some(Cow::Borrowed(plan.as_ref())),
            _ => None,
        }
    }
}

/// The relations a plan reads, subqueries included.
pub fn sources(plan: &LogicalPlan) -> Vec<RelationId> {
    let mut sources = Vec::new();
    // The closure never fails.
    let _ = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let source: &dyn std::any::Any = scan.source.as_ref();
            if let Some(source) = source.downcast_ref::<RelationSource>() {
                sources.push(source.relation.id);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    sources
}

/// Of each column of a plan's result the relation's column that it is, by its position; None for one that is
/// made.
pub fn origins(plan: &LogicalPlan) -> Vec<Option<(RelationId, usize)>> {
    let of_input = || plan.inputs().first().map(|input| origins(input)).unwrap_or_default();
    let found = match plan {
        LogicalPlan::TableScan(scan) => {
            let source: &dyn std::any::Any = scan.source.as_ref();
            let Some(source) = source.downcast_ref::<RelationSource>() else { return nowhere(plan) };
            let columns = 0..scan.source.schema().fields().len();
            let kept = scan.projection.clone().unwrap_or_else(|| columns.collect());
            let own = |at: usize| (at < source.relation.columns.len()).then_some((source.relation.id, at));
            kept.into_iter().map(own).collect()
        }
        LogicalPlan::Projection(projection) => {
            let (inner, schema) = (origins(&projection.input), projection.input.schema());
            let column = |expr: &Expr| match expr.clone().unalias_nested().data {
                Expr::Column(column) => inner.get(schema.maybe_index_of_column(&column)?).copied().flatten(),
                _ => None,
            };
            projection.expr.iter().map(column).collect()
        }
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(_) => of_input(),
        LogicalPlan::Join(join) => [origins(&join.left), origins(&join.right)].concat(),
        _ => return nowhere(plan),
    };
    // A join may show one side only.
    if found.len() == plan.schema().fields().len() { found } else { nowhere(plan) }
}

fn nowhere(plan: &LogicalPlan) -> Vec<Option<(RelationId, usize)>> {
    vec![None; plan.schema().fields().len()]
}
