//! OVER windows and ORDER BY … LIMIT: the first rows of each partition where that is all that is
//! asked for, else partitions recomputed as they change.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, DFSchemaRef, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::logical_plan::{FetchType, SkipType};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};

use super::convert::Converter;
use super::fragment::{Hoisted, RowsInput};
use super::{NodeId, NodeKind};
use crate::error::{Error, Result};

impl Converter {
    /// LIMIT and OFFSET, with the ORDER BY below them if there is one.
    pub(super) fn limit(&mut self, limit: &logical::Limit) -> Result<NodeId> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
            (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return Err(Error::continuous("LIMIT of an expression", "write a number"));
        };
        match limit.input.as_ref() {
            LogicalPlan::Sort(sort) => self.first_rows(&sort.input, &sort.expr, skip, fetch),
            other => self.first_rows(other, &[], skip, fetch),
        }
    }

    /// ORDER BY alone means nothing for a table; with a number of rows it chooses them.
    pub(super) fn sort(&mut self, sort: &logical::Sort) -> Result<NodeId> {
        match sort.fetch {
            None => self.node(&sort.input),
            Some(fetch) => self.first_rows(&sort.input, &sort.expr, 0, Some(fetch)),
        }
    }

    fn first_rows(
        &mut self,
        input: &LogicalPlan,
        order: &[Sort],
        skip: usize,
        fetch: Option<usize>,
    ) -> Result<NodeId> {
        let id = self.node(input)?;
        let schema = Arc::clone(&self.nodes[id].schema);
        let kind = NodeKind::TopN {
            partition: Vec::new(),
            order: order.to_vec(),
            skip,
            fetch: fetch.unwrap_or(usize::MAX),
            numbered: false,
        };
        Ok(self.push(kind, vec![id], &schema))
    }

    /// The row_number() below a filter that keeps the first rows by it: only those rows are kept. None
    /// for any other filter.
    pub(super) fn first_numbered(&mut self, filter: &logical::Filter) -> Result<Option<NodeId>> {
        let (window, projection) = match filter.input.as_ref() {
            LogicalPlan::Window(window) => (window, None),
            LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                LogicalPlan::Window(window) if projection.expr.iter().all(is_column) => {
                    (window, Some(projection))
                }
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let Some(function) = numbered(window) else { return Ok(None) };
        let Some(fetch) = bound(filter, window) else { return Ok(None) };
        let input = self.node(&window.input)?;
        let kind = NodeKind::TopN {
            partition: function.params.partition_by.clone(),
            order: function.params.order_by.clone(),
            skip: 0,
            fetch,
            numbered: true,
        };
        let rows = self.push(kind, vec![input], &window.schema);
        Ok(Some(match projection {
            None => rows,
            Some(projection) => {
                self.push(NodeKind::Project(projection.expr.clone()), vec![rows], &projection.schema)
            }
        }))
    }

    /// OVER: all rows of a partition, whose functions are computed again when one of them changes.
    pub(super) fn window(&mut self, window: &logical::Window) -> Result<NodeId> {
        let input = self.node(&window.input)?;
        let mut hoisted = Hoisted { exprs: Vec::new(), keep_columns: true };
        let calls = window.window_expr.iter().map(|c| hoisted.call(c)).collect::<Result<Vec<_>>>()?;
        let below = self.hoist(input, hoisted)?;
        let below_schema = Arc::clone(&self.nodes[below].schema);
        let partition = common_columns(calls.iter().map(partition_columns));
        let key_columns =
            partition.iter().map(|c| Ok(below_schema.index_of_column(c)?)).collect::<Result<Vec<_>>>()?;
        let partition = partition.into_iter().map(Expr::Column).collect();
        let leaf = Arc::new(RowsInput::plan(&below_schema)?);
        let fragment = Arc::new(LogicalPlan::Window(logical::Window::try_new(calls, leaf)?));
        let kept = (0..below_schema.fields().len()).map(Some).collect();
        let kind = NodeKind::Recompute { partition, key_columns, kept, fragment };
        if below == input {
            return Ok(self.push(kind, vec![below], &window.schema));
        }
        let (own, added) = (self.nodes[input].schema.fields().len(), below_schema.fields().len());
        let wide = widened(&below_schema, &window.schema, own)?;
        let computed = self.push(kind, vec![below], &wide);
        let columns = wide.columns();
        let kept = columns[..own].iter().chain(&columns[added..]).cloned().map(Expr::Column).collect();
        Ok(self.push(NodeKind::Project(kept), vec![computed], &window.schema))
    }
}

/// The layout below a window with the window's own columns behind it.
fn widened(below: &DFSchema, window: &DFSchema, own: usize) -> Result<DFSchemaRef> {
    let fields =
        below.iter().chain(window.iter().skip(own)).map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    Ok(Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?))
}

fn is_column(expr: &Expr) -> bool {
    matches!(expr, Expr::Column(_))
}

/// Columns that every list has. A constant among them parts nothing and is left out.
pub(super) fn common_columns(lists: impl IntoIterator<Item = Vec<Column>>) -> Vec<Column> {
    let in_both = |a: Vec<Column>, b: Vec<Column>| a.into_iter().filter(|c| b.contains(c)).collect();
    lists.into_iter().reduce(in_both).unwrap_or_default()
}

/// PARTITION BY of a call whose expressions are hoisted: columns, and constants that part nothing.
fn partition_columns(call: &Expr) -> Vec<Column> {
    let parts = function(call).map_or(&[][..], |f| &f.params.partition_by);
    parts.iter().filter_map(Expr::try_as_col).cloned().collect()
}

fn function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::WindowFunction(function) => Some(function),
        Expr::Alias(alias) => function(&alias.expr),
        _ => None,
    }
}

/// The one row_number() a window computes.
fn numbered(window: &logical::Window) -> Option<&WindowFunction> {
    match window.window_expr.as_slice() {
        [one] => function(one).filter(|f| f.fun.name() == "row_number" && f.params.filter.is_none()),
        _ => None,
    }
}

/// The largest row number a filter lets through.
fn bound(filter: &logical::Filter, window: &logical::Window) -> Option<usize> {
    let (qualifier, field) = window.schema.iter().last()?;
    let is_number = |e: &Expr| matches!(e, Expr::Column(c) if c.name == *field.name() && c.relation.as_ref() == qualifier);
    split_conjunction(&filter.predicate)
        .into_iter()
        .filter_map(|condition| {
            let Expr::BinaryExpr(binary) = condition else { return None };
            let (op, literal) = match (binary.left.as_ref(), binary.right.as_ref()) {
                (number, Expr::Literal(value, _)) if is_number(number) => (binary.op, value),
                (Expr::Literal(value, _), number) if is_number(number) => (binary.op.swap()?, value),
                _ => return None,
            };
            let ScalarValue::UInt64(Some(n)) = literal.cast_to(&DataType::UInt64).ok()? else { return None };
            let n = usize::try_from(n).ok()?;
            match op {
                Operator::LtEq | Operator::Eq => Some(n),
                Operator::Lt => Some(n.saturating_sub(1)),
                _ => None,
            }
        })
        .min()
}
