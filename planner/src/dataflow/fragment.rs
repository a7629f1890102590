//! A piece of a batch plan that an operator runs over rows of its own: DataFusion's form of an
//! operation, for the operations that have no incremental form here.
//!
//! Shape: a logical plan over one leaf, [`RowsInput`], whose rows the executor supplies.
//! Invariant: expressions that can fail are computed below the fragment, where a failing row is
//! rejected alone; inside it there are only columns and literals.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::error::Result;

/// The leaf of a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowsInput {
    schema: DFSchemaRef,
}

impl RowsInput {
    /// A leaf with rows of this layout, in which any column may be NULL.
    pub(super) fn plan(schema: &DFSchema) -> Result<LogicalPlan> {
        let schema = nullable(schema)?;
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self { schema }) }))
    }
}

/// The layout, in which any column may be NULL.
pub(super) fn nullable(schema: &DFSchema) -> Result<DFSchemaRef> {
    let fields = schema.iter().map(|(q, f)| (q.cloned(), Arc::new(f.as_ref().clone().with_nullable(true))));
    Ok(Arc::new(DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())?))
}

impl UserDefinedLogicalNodeCore for RowsInput {
    fn name(&self) -> &'static str {
        "RowsInput"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        Vec::new()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowsInput")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, _: Vec<LogicalPlan>) -> datafusion::common::Result<Self> {
        Ok(self.clone())
    }
}

// Leaves have no order that means anything.
impl PartialOrd for RowsInput {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

/// Expressions moved below a fragment, each once, under names no query can write.
#[derive(Default)]
pub(super) struct Hoisted {
    pub(super) exprs: Vec<Expr>,
    /// Columns of the input stay as they are.
    pub(super) keep_columns: bool,
}

impl Hoisted {
    /// What stands for `expr` above.
    pub(super) fn column(&mut self, expr: Expr) -> Expr {
        match &expr {
            Expr::Literal(..) => return expr,
            Expr::Column(_) if self.keep_columns => return expr,
            _ => {}
        }
        let at = self.exprs.iter().position(|e| *e == expr).unwrap_or_else(|| {
            self.exprs.push(expr);
            self.exprs.len() - 1
        });
        Expr::Column(Column::from_name(Self::name(at)))
    }

    /// The call of a function with its arguments, filter and order hoisted.
    pub(super) fn call(&mut self, call: &Expr) -> Result<Expr> {
        let call = call.clone().unalias();
        Ok(call.map_children(|child| Ok(Transformed::yes(self.column(child))))?.data)
    }

    /// The name of a hoisted expression.
    pub(super) fn name(at: usize) -> String {
        format!("\u{1}arg{at}")
    }
}
