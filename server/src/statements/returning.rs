//! RETURNING: a select list over the rows that a statement has written, or is about to take away.
//!
//! Source: PostgreSQL, "Returning Data from Modified Rows".

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::TableSource;
use executor::PullContext;
use futures::StreamExt;
use planner::{BatchQuery, Binder, Catalog, Fallback, Relation};
use sql::sqlparser::ast::{Ident, SelectItem};

use super::{Outcome, Parameters, Rows};
use crate::pg::WireError;
use crate::session::Session;

/// What the rows are called where the select list is planned: no relation has that name.
pub(super) const WRITTEN: &str = "\u{1}written";

/// The rows, as a relation.
pub(super) struct Written(pub(super) RecordBatch);

impl Fallback for Written {
    fn source(&self, name: &TableReference) -> Option<Arc<dyn TableSource>> {
        let rows = Some(&self.0).filter(|_| name.table() == WRITTEN)?;
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).ok()?;
        Some(provider_as_source(Arc::new(table)))
    }
}

/// Binds a select list over rows of a relation, which goes by its alias where the statement gives one.
pub(super) fn bind(
    session: &Session,
    relation: &Relation,
    alias: Option<&Ident>,
    items: &[SelectItem],
    rows: &RecordBatch,
) -> Result<BatchQuery, WireError> {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let alias = alias.map_or_else(|| quoted(&relation.name), |alias| quoted(&sql::fold(alias)));
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    let query = sql::parse_query(&format!("SELECT {} FROM \"{WRITTEN}\" AS {alias}", items.join(", ")))?;
    let rows = rows.project(&(0..relation.columns.len()).collect::<Vec<_>>())?;
    let rows = RecordBatch::try_new(planner_schema(relation), rows.columns().to_vec())?;
    let (catalog, written) = (Catalog::default(), Written(rows));
    let binder = Binder::new(&catalog, &session.shared.state).in_zone(session.settings.time_zone());
    Ok(binder.with_fallback(&written).batch(&query)?)
}

/// The relation's own columns, any of which may be NULL in a row that goes.
fn planner_schema(relation: &Relation) -> datafusion::arrow::datatypes::SchemaRef {
    let fields: Vec<_> = relation.columns.iter().map(|c| c.field().with_nullable(true)).collect();
    Arc::new(datafusion::arrow::datatypes::Schema::new(fields))
}

/// No rows of a relation, to find the types of a select list.
pub(super) fn no_rows(relation: &Relation) -> RecordBatch {
    RecordBatch::new_empty(planner_schema(relation))
}

/// The answer of a bound select list, under the tag of its statement.
pub(super) async fn answer(
    session: &mut Session,
    bound: BatchQuery,
    parameters: &Parameters,
    tag: &'static str,
) -> Result<Outcome, WireError> {
    let snapshot = session.snapshot().await?;
    let plan = parameters.apply(bound.plan)?;
    let answer = PullContext { snapshot, state: session.state() }.answer(plan).await?;
    let batches = answer.rows.map(|batch| batch.map_err(WireError::from)).boxed();
    let (names, schema) = (bound.names, answer.schema);
    Ok(Outcome::Rows(Rows { names, schema, batches, endless: false, tag, binary: false }))
}
