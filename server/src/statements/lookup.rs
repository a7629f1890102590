//! The direct path: a prepared query for the row of one key finds it in the table's index.
//!
//! Nothing is planned again. Whatever is not as it was when the statement was prepared (the relation, a value of
//! another type, an index that has moved on) goes the long way, which gives the same answer.

use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use futures::{StreamExt, stream};
use planner::{KeyValue, PointLookup, Privilege};

use super::{Parameters, Rows};
use crate::pg::WireError;
use crate::session::Session;

/// How often a newer snapshot is asked before the table is scanned: its index moves while an epoch is stepped.
const TRIES: usize = 8;

/// The row of the key, if the direct path finds out.
pub(crate) async fn find(
    session: &mut Session,
    lookup: &PointLookup,
    result: &(Vec<String>, SchemaRef),
    parameters: &Parameters,
) -> Result<Option<Rows>, WireError> {
    let relation = &lookup.relation;
    if session.transaction.is_some() {
        return Ok(None);
    }
    let Some(key) = values(lookup, parameters) else { return Ok(None) };
    if relation.is_base() {
        // What anybody was told is written is there.
        session.saw(session.engine().acknowledged());
    }
    for _ in 0..TRIES {
        let snapshot = session.snapshot().await?;
        if !snapshot.catalog.by_id(relation.id).is_some_and(|now| Arc::ptr_eq(now, relation)) {
            return Ok(None);
        }
        planner::check_privilege(&snapshot.catalog, session.role(), Privilege::Select, relation)?;
        if !snapshot.catalog.access().sees_all(session.role(), relation.id) {
            return Ok(None);
        }
        if let Some(found) = snapshot.find(relation.id, &key)? {
            return rows(lookup, result, found).map(Some);
        }
        tokio::task::yield_now().await;
    }
    Ok(None)
}

fn values(lookup: &PointLookup, parameters: &Parameters) -> Option<Vec<ScalarValue>> {
    let value = |value: &KeyValue| match value {
        KeyValue::Literal(value) => Some(value.clone()),
        KeyValue::Parameter(index) => parameters.0.get(*index).cloned(),
    };
    lookup.key.iter().map(value).collect()
}

fn rows(
    lookup: &PointLookup,
    (names, schema): &(Vec<String>, SchemaRef),
    found: Vec<RecordBatch>,
) -> Result<Rows, WireError> {
    let shown = |batch: RecordBatch| -> Result<RecordBatch, WireError> {
        let columns = lookup.columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    };
    let batches: Vec<_> = found.into_iter().map(shown).collect();
    Ok(Rows {
        names: names.clone(),
        schema: Arc::clone(schema),
        batches: stream::iter(batches).boxed(),
        endless: false,
        tag: "SELECT",
        binary: false,
    })
}
