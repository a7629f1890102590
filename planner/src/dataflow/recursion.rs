//! WITH RECURSIVE: done again as a whole when anything that it reads changes.
//!
//! Its parts that do not read the recursion itself are kept up to date like any other query: the first term, and
//! whatever the second one joins. Their rows lie in one bag, each with the number of its part, and the recursion is a
//! fragment over the bag. Invariant: the fragment is the recursion, with each part in the place where it was.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::{Expr, LogicalPlan, lit};

use super::convert::Converter;
use super::fragment::{RowsInput, nullable};
use super::{NodeId, NodeKind};
use crate::error::Result;
use crate::source::RelationSource;

/// The column of a bag that says which part a row belongs to.
const PART: &str = "\u{1}part";

impl Converter {
    pub(super) fn recursion(&mut self, query: &logical::RecursiveQuery) -> Result<NodeId> {
        let mut parts = vec![Arc::clone(&query.static_term)];
        collect(&query.recursive_term, &query.name, &mut parts)?;
        let bag = bag_schema(&parts)?;
        let inputs = (0..).zip(&parts).map(|(number, part)| {
            let input = self.node(part)?;
            let exprs = in_bag(number, &parts, &self.nodes[input].schema, &bag)?;
            Ok(self.push(NodeKind::Project(exprs), vec![input], &bag))
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let rows = self.push(NodeKind::Union, inputs, &bag);
        let leaf = RowsInput::plan(&bag)?;
        let out_of_bag =
            |number: usize| -> Result<LogicalPlan> { out_of_bag(number, &parts[number], leaf.clone()) };
        let mut numbers = 1..;
        let recursive_term = replace(&query.recursive_term, &query.name, &mut || {
            out_of_bag(numbers.next().unwrap_or_default())
        })?;
        let fragment = LogicalPlan::RecursiveQuery(logical::RecursiveQuery {
            static_term: Arc::new(out_of_bag(0)?),
            recursive_term: Arc::new(recursive_term),
            schema: nullable(&query.schema)?,
            ..query.clone()
        });
        let kind = NodeKind::Recompute {
            partition: Vec::new(),
            key_columns: Vec::new(),
            kept: Vec::new(),
            fragment: Arc::new(fragment),
        };
        Ok(self.push(kind, vec![rows], &query.schema))
    }
}

/// Whether a plan reads the rows of the recursion `name`.
fn reads_recursion(plan: &LogicalPlan, name: &str) -> datafusion::common::Result<bool> {
    plan.exists(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(false) };
        let source: &dyn std::any::Any = scan.source.as_ref();
        Ok(scan.table_name.table() == name && !source.is::<RelationSource>())
    })
}

/// The largest pieces of a plan that do not read the recursion, in the order of the plan.
fn collect(plan: &LogicalPlan, name: &str, parts: &mut Vec<Arc<LogicalPlan>>) -> Result<()> {
    plan.apply(|node| {
        if reads_recursion(node, name)? {
            return Ok(TreeNodeRecursion::Continue);
        }
        parts.push(Arc::new(node.clone()));
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(())
}

/// The plan with `next` in place of each of those pieces.
fn replace(
    plan: &LogicalPlan,
    name: &str,
    next: &mut dyn FnMut() -> Result<LogicalPlan>,
) -> Result<LogicalPlan> {
    let replaced = plan.clone().transform_down(|node| {
        if reads_recursion(&node, name)? {
            return Ok(Transformed::no(node));
        }
        let part = next()?;
        Ok(Transformed::new(part, true, TreeNodeRecursion::Jump))
    })?;
    Ok(replaced.data)
}

/// What holds the rows of all parts: the number of the part, and the columns of each.
fn bag_schema(parts: &[Arc<LogicalPlan>]) -> Result<DFSchemaRef> {
    let mut fields = vec![(None, Arc::new(Field::new(PART, DataType::Int64, false)))];
    for (number, part) in parts.iter().enumerate() {
        for (at, field) in part.schema().fields().iter().enumerate() {
            let named = field.as_ref().clone().with_name(name_in_bag(number, at)).with_nullable(true);
            fields.push((None, Arc::new(named)));
        }
    }
    Ok(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?))
}

fn name_in_bag(part: usize, column: usize) -> String {
    format!("\u{1}{part}.{column}")
}

/// The values of a row of a part in the bag: NULL in the columns of the others.
fn in_bag(number: i64, parts: &[Arc<LogicalPlan>], own: &DFSchema, bag: &DFSchema) -> Result<Vec<Expr>> {
    let mut exprs = vec![lit(number).alias(PART)];
    let mut fields = bag.fields().iter().skip(1);
    for (part, plan) in (0..).zip(parts) {
        for (at, field) in (0..plan.schema().fields().len()).zip(&mut fields) {
            let value = if part == number {
                Expr::Column(own.columns()[at].clone())
            } else {
                Expr::Literal(ScalarValue::try_from(field.data_type())?, None)
            };
            exprs.push(value.alias(field.name()));
        }
    }
    Ok(exprs)
}

/// The rows of a part, out of the bag, as the part has them.
fn out_of_bag(number: usize, part: &LogicalPlan, bag: LogicalPlan) -> Result<LogicalPlan> {
    let is_its =
        Expr::Column(Column::new_unqualified(PART)).eq(lit(i64::try_from(number).unwrap_or_default()));
    let rows = LogicalPlan::Filter(logical::Filter::try_new(is_its, Arc::new(bag))?);
    let columns = part.schema().iter().enumerate().map(|(at, (qualifier, field))| {
        let column = Expr::Column(Column::new_unqualified(name_in_bag(number, at)));
        column.alias_qualified(qualifier.cloned(), field.name())
    });
    let (columns, schema) = (columns.collect(), Arc::clone(part.schema()));
    Ok(LogicalPlan::Projection(logical::Projection::try_new_with_schema(columns, Arc::new(rows), schema)?))
}
