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
}

impl RelationSource {
    /// With or without the pseudo-columns.
    pub fn new(relation: Arc<Relation>, pseudo: bool) -> Self {
        let schema = if pseudo { relation.full_schema() } else { relation.schema() };
        Self { relation, schema }
    }

    /// With a layout that begins like the full one.
    pub fn with_schema(relation: Arc<Relation>, schema: SchemaRef) -> Self {
        Self { relation, schema }
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
