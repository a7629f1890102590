//! Expressions of a dataflow, compiled once and evaluated on batches.
//!
//! An expression that fails on a batch is tried on its halves, down to the rows that are at fault:
//! those are rejected with the reason, the others go on. A row that is taken back fails the same
//! way, so it takes back nothing.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use datafusion::arrow::compute::prep_null_mask_filter;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::change::ChangeBatch;
use crate::error::{Error, Result};
use crate::rejects::StepRejects;

/// A compiled expression.
#[derive(Debug, Clone)]
pub(crate) struct Expression(Arc<dyn PhysicalExpr>);

impl Expression {
    pub(crate) fn compile(expr: &Expr, schema: &DFSchema) -> Result<Self> {
        let props = ExecutionProps::new();
        let context = PhysicalPlanningContext::default();
        Ok(Self(create_physical_expr(expr, schema, &props, &context)?))
    }

    pub(crate) fn compile_all(exprs: &[Expr], schema: &DFSchema) -> Result<Vec<Self>> {
        exprs.iter().map(|e| Self::compile(e, schema)).collect()
    }

    pub(crate) fn evaluate(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        Ok(self.0.evaluate(rows)?.into_array(rows.num_rows())?)
    }

    /// True where the predicate is true; null counts as false.
    pub(crate) fn mask(&self, rows: &RecordBatch) -> Result<BooleanArray> {
        let array = self.evaluate(rows)?;
        let mask = array
            .as_any()
            .downcast_ref::<BooleanArray>()
            .ok_or_else(|| Error::bug("filter", "the predicate is not boolean"))?;
        Ok(if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() })
    }

    /// A literal that is not null.
    pub(crate) fn is_constant(expr: &Expr) -> bool {
        matches!(expr, Expr::Literal(value, _) if !matches!(value, ScalarValue::Null) && !value.is_null())
    }
}

/// Applies `f` to a batch, and where it fails to smaller and smaller parts of it.
pub(crate) fn resilient<T>(
    batch: &ChangeBatch,
    rejects: &mut StepRejects,
    f: &mut impl FnMut(&ChangeBatch) -> Result<T>,
) -> Result<Vec<T>> {
    match f(batch) {
        Ok(value) => Ok(vec![value]),
        Err(Error::Bug { place, message }) => Err(Error::Bug { place, message }),
        Err(error) if batch.len() <= 1 => {
            rejects.push(error, || row_text(&batch.rows, 0));
            Ok(Vec::new())
        }
        Err(_) => {
            let half = batch.len() / 2;
            let mut out = resilient(&slice(batch, 0, half), rejects, f)?;
            out.extend(resilient(&slice(batch, half, batch.len() - half), rejects, f)?);
            Ok(out)
        }
    }
}

fn slice(batch: &ChangeBatch, from: usize, len: usize) -> ChangeBatch {
    ChangeBatch {
        rows: batch.rows.slice(from, len),
        weights: batch.weights.as_ref().map(|w| w.slice(from, len)),
    }
}

/// One row as text, for a person.
pub(crate) fn row_text(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let mut parts = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let value = ArrayFormatter::try_new(column, &options)
            .map(|f| f.value(row).to_string())
            .unwrap_or_else(|_| "?".to_owned());
        parts.push(format!("{}={value}", field.name()));
    }
    parts.join(" ")
}
