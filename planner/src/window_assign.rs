//! The logical node that places rows in windows.
//!
//! Shape: each row comes out once for every window that holds its time, with two columns more,
//! beginning and end. Filters on the row's own columns pass below it, so that rows filtered out
//! do not move stream time (ksqlDB's rule).

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, Result, TableReference};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore};

/// Grace where a WINDOW clause names none: ksqlDB's 24 hours, less the window.
pub(crate) fn default_grace_ms(window_ms: i64) -> i64 {
    (24 * 3_600_000 - window_ms).max(0)
}

/// Length, distance and grace of windows, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WindowSpec {
    /// Length of a window.
    pub size_ms: i64,
    /// Distance between two beginnings; the length for tumbling windows.
    pub advance_ms: i64,
    /// Cumulating windows: each grows by this, up to its length; a window for each step.
    pub step_ms: Option<i64>,
    /// How long after its end a window takes rows. None: for ever.
    pub grace_ms: Option<i64>,
}

/// Places rows in windows.
#[derive(Debug, Clone)]
pub struct WindowAssign {
    /// The rows.
    pub input: LogicalPlan,
    /// Their time: ms since 1970 as BIGINT, a timestamp or a date.
    pub time: Expr,
    /// The windows.
    pub spec: WindowSpec,
    qualifier: Option<TableReference>,
    names: [String; 2],
    schema: DFSchemaRef,
}

impl WindowAssign {
    /// `names` are those of the two new columns, which get the type of `time`.
    ///
    /// # Errors
    /// If a column of that name is there already.
    pub fn try_new(
        input: LogicalPlan,
        time: Expr,
        spec: WindowSpec,
        qualifier: Option<TableReference>,
        names: [String; 2],
    ) -> Result<Self> {
        let data_type = match time.get_type(input.schema())? {
            DataType::Date32 => {
                DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Microsecond, None)
            }
            other => other,
        };
        let mut fields: Vec<_> = input.schema().iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
        for name in &names {
            fields.push((qualifier.clone(), Arc::new(Field::new(name, data_type.clone(), true))));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?);
        Ok(Self { input, time, spec, qualifier, names, schema })
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &'static str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![self.time.clone()]
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        self.names.iter().cloned().collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "WindowAssign: {} size={}ms advance={}ms",
            self.time, self.spec.size_ms, self.spec.advance_ms
        )?;
        if let Some(step) = self.spec.step_ms {
            write!(f, " step={step}ms")?;
        }
        match self.spec.grace_ms {
            Some(grace) => write!(f, " grace={grace}ms"),
            None => Ok(()),
        }
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        match (exprs.pop(), inputs.pop()) {
            (Some(time), Some(input)) => {
                Self::try_new(input, time, self.spec, self.qualifier.clone(), self.names.clone())
            }
            _ => datafusion::common::internal_err!("a window assignment has one input and one time"),
        }
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let own = self.input.schema().fields().len();
        Some(vec![output_columns.iter().copied().filter(|c| *c < own).collect()])
    }
}

// Schemas follow from the rest, and LogicalPlan has no total order.
impl PartialEq for WindowAssign {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec
            && self.time == other.time
            && self.names == other.names
            && self.input == other.input
    }
}

impl Eq for WindowAssign {}

impl Hash for WindowAssign {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.hash(state);
        self.time.hash(state);
        self.input.hash(state);
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.spec.partial_cmp(&other.spec) {
            Some(Ordering::Equal) => self.input.partial_cmp(&other.input),
            order => order,
        }
    }
}
