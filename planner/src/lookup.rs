//! A query for the row of one key, recognised in its plan: what dashboards and applications ask most.
//!
//! Only what says nothing else is one: columns of one relation, where each column of its key equals a parameter
//! or a literal. Next: the server finds the row in the table's index, without planning anything again.

use std::sync::Arc;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Filter, LogicalPlan, Operator};

use crate::catalog::Relation;
use crate::source::{RelationSource, origins};

/// The value of a key's column.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyValue {
    /// The parameter at an index from 0 on.
    Parameter(usize),
    /// Always the same.
    Literal(ScalarValue),
}

/// A query for the row of one key.
#[derive(Debug, Clone)]
pub struct PointLookup {
    /// The relation.
    pub relation: Arc<Relation>,
    /// A value for each column of its key, in the key's order.
    pub key: Vec<KeyValue>,
    /// The relation's columns that the result shows.
    pub columns: Vec<usize>,
}

impl PointLookup {
    /// What a bound plan asks, if it is such a query.
    pub fn of(plan: &LogicalPlan) -> Option<Self> {
        let filter = filter(plan)?;
        let relation = relation(&filter.input)?;
        // A stream's rows, and those of a query that is written out, have no index.
        if relation.key.is_empty() || relation.is_stream() || relation.is_expanded() {
            return None;
        }
        let own =
            |origin: Option<(u32, usize)>| origin.filter(|(id, _)| *id == relation.id).map(|(_, at)| at);
        let columns = origins(plan).into_iter().map(own).collect::<Option<Vec<_>>>()?;
        let (inner, schema) = (origins(&filter.input), filter.input.schema());
        let mut values: Vec<Option<KeyValue>> = vec![None; relation.key.len()];
        for condition in split_conjunction(&filter.predicate) {
            let (column, value) = equality(condition)?;
            let (_, at) = inner.get(schema.maybe_index_of_column(column)?).copied().flatten()?;
            let place = relation.key.iter().position(|key| *key == at)?;
            // A column that equals two values is for somebody else to think about.
            if values[place].replace(value).is_some() {
                return None;
            }
        }
        let key = values.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Self { relation: Arc::clone(&relation), key, columns })
    }
}

/// The only condition of a query that chooses columns.
fn filter(plan: &LogicalPlan) -> Option<&Filter> {
    match plan {
        LogicalPlan::Projection(projection) => filter(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => filter(&alias.input),
        LogicalPlan::Filter(found) => Some(found),
        _ => None,
    }
}

fn relation(plan: &LogicalPlan) -> Option<Arc<Relation>> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => relation(&alias.input),
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
            let source: &dyn std::any::Any = scan.source.as_ref();
            source.downcast_ref::<RelationSource>().map(|source| Arc::clone(&source.relation))
        }
        _ => None,
    }
}

fn equality(condition: &Expr) -> Option<(&datafusion::common::Column, KeyValue)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = condition else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), value) | (value, Expr::Column(column)) => Some((column, key_value(value)?)),
        _ => None,
    }
}

fn key_value(expr: &Expr) -> Option<KeyValue> {
    match expr {
        Expr::Literal(value, _) => Some(KeyValue::Literal(value.clone())),
        Expr::Placeholder(placeholder) => {
            let number: usize = placeholder.id.trim_start_matches('$').parse().ok()?;
            number.checked_sub(1).map(KeyValue::Parameter)
        }
        _ => None,
    }
}
