//! SELECT, answered once or for ever.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array, new_null_array,
};
use datafusion::arrow::compute::{cast, filter_record_batch, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::LogicalPlan;
use executor::{PullContext, PushItem, Snapshot, Subscription};
use futures::{StreamExt, stream};
use planner::{BatchQuery, Dataflow, Joins};
use sql::sqlparser::ast::{Expr, LimitClause, Value};
use sql::{Query, Subscribe};

use super::{Parameters, Rows, notify};
use crate::pg::{WireError, with_origins};
use crate::session::Session;
use crate::system::{SystemRelations, settings_made};

/// Binds a query against a snapshot.
pub(crate) fn bind(
    session: &Session,
    snapshot: &Arc<Snapshot>,
    query: &Query,
) -> Result<BatchQuery, WireError> {
    let system = SystemRelations::new(Arc::clone(snapshot), session);
    let query = crate::system::adapt(query, &snapshot.catalog, session.who())?;
    let binder = session.question_binder(&snapshot.catalog).with_fallback(&system);
    Ok(binder.batch(&query)?)
}

/// Binds a query against a snapshot that holds, of every base relation it reads, whatever anybody
/// was told is written. Views it reads may be as old as the session allows.
pub(super) async fn bind_current(
    session: &mut Session,
    query: &Query,
) -> Result<(Arc<Snapshot>, BatchQuery), WireError> {
    let acknowledged = session.engine().acknowledged();
    let snapshot = session.snapshot().await?;
    let bound = bind(session, &snapshot, query)?;
    let reads_base = || {
        let relations = planner::sources(&bound.plan);
        relations.iter().filter_map(|id| snapshot.catalog.by_id(*id)).any(|r| r.dataflow().is_none())
    };
    if session.transaction.is_some() || snapshot.epoch >= acknowledged || !reads_base() {
        return Ok((snapshot, bound));
    }
    session.saw(acknowledged);
    let snapshot = session.snapshot().await?;
    let bound = bind(session, &snapshot, query)?;
    Ok((snapshot, bound))
}

/// A query that is answered once, at one epoch.
pub(crate) async fn pull(
    session: &mut Session,
    query: &Query,
    parameters: &Parameters,
) -> Result<Rows, WireError> {
    match notify::told(query) {
        Some(told) => notify::notify(session, &told, parameters).await,
        None => answer(session, query, parameters).await,
    }
}

/// The same for one that only asks.
pub(super) async fn answer(
    session: &mut Session,
    query: &Query,
    parameters: &Parameters,
) -> Result<Rows, WireError> {
    for (name, value) in settings_made(query) {
        session.settings.set(&name, Some(value))?;
    }
    let (snapshot, bound) = bind_current(session, query).await?;
    refuse_own_writes(session, &snapshot, &bound.plan)?;
    let origins = planner::origins(&bound.plan);
    let plan = parameters.apply(bound.plan)?;
    let context = PullContext { snapshot, state: session.state() };
    let answer = context.answer(plan).await?;
    let batches = answer.rows.map(|batch| batch.map_err(WireError::from)).boxed();
    Ok(Rows {
        names: bound.names,
        schema: with_origins(&answer.schema, &origins),
        batches,
        endless: false,
        tag: "SELECT",
        binary: false,
    })
}

/// A transaction's rows are not there before it ends; a SELECT that should see them would be wrong.
fn refuse_own_writes(session: &Session, snapshot: &Snapshot, plan: &LogicalPlan) -> Result<(), WireError> {
    let written = session.written();
    if written.is_empty() {
        return Ok(());
    }
    let read = snapshot.catalog.upstream(&planner::sources(plan));
    if written.iter().any(|id| read.contains(id)) {
        let message = "reading a relation that the same transaction has written to";
        return Err(WireError::unsupported(message).hint("COMMIT first; the rows become visible together."));
    }
    Ok(())
}

/// The dataflow of a push query, names of its columns, and its LIMIT.
pub(crate) fn plan_push(
    session: &Session,
    snapshot: &Snapshot,
    query: &Query,
) -> Result<(Dataflow, Vec<String>, Option<usize>), WireError> {
    let mut query = query.clone();
    let limit = take_limit(&mut query)?;
    let binder = session.binder(&snapshot.catalog);
    let bound = binder.batch(&query)?;
    let dataflow = Dataflow::try_new(
        &session.shared.state,
        &bound.plan,
        Joins::StreamTable,
        query.emit.unwrap_or(sql::Emit::Changes),
    )?;
    Ok((dataflow, bound.names, limit))
}

/// LIMIT of a push query counts rows as they come.
fn take_limit(query: &mut Query) -> Result<Option<usize>, WireError> {
    match query.ast.limit_clause.take() {
        None => Ok(None),
        Some(LimitClause::LimitOffset { limit: Some(Expr::Value(value)), offset: None, .. }) => match &value
            .value
        {
            Value::Number(number, _) => {
                number.parse().map(Some).map_err(|_| WireError::new("22023", "LIMIT must be a whole number"))
            }
            _ => Err(WireError::new("22023", "LIMIT must be a number")),
        },
        Some(_) => Err(WireError::unsupported("this form of LIMIT in a push query").hint("LIMIT n is.")),
    }
}

/// A query whose changes are sent as they happen.
pub(crate) async fn push(
    session: &mut Session,
    query: &Query,
    subscribe: Option<&Subscribe>,
) -> Result<Rows, WireError> {
    let snapshot = session.snapshot().await?;
    let (dataflow, mut names, limit) = plan_push(session, &snapshot, query)?;
    let (first, progress) = subscribe.map_or((true, false), |s| (s.snapshot, s.progress));
    let subscription = session.engine().subscribe(Arc::new(dataflow), first, progress).await?;
    let inner = executor::nullable(&subscription.schema);
    let shape = Shape {
        changes: subscribe.is_some(),
        progress,
        key: subscription.key.clone(),
        schema: Arc::clone(&inner),
    };
    let schema = if subscribe.is_some() {
        names.splice(0..0, ["epoch".to_owned(), "op".to_owned()]);
        let mut fields =
            vec![Field::new("epoch", DataType::Int64, true), Field::new("op", DataType::Utf8, true)];
        fields.extend(inner.fields().iter().map(|f| f.as_ref().clone()));
        Arc::new(Schema::new(fields))
    } else {
        inner
    };
    let out = Arc::clone(&schema);
    let state = (subscription, shape, out, limit, Vec::<RecordBatch>::new());
    let batches =
        stream::try_unfold(state, |(mut subscription, shape, out, mut left, mut ready)| async move {
            loop {
                if left == Some(0) {
                    return Ok(None);
                }
                if let Some(batch) = ready.pop() {
                    let batch = match left {
                        Some(n) if batch.num_rows() > n => batch.slice(0, n),
                        _ => batch,
                    };
                    left = left.map(|n| n - batch.num_rows());
                    return Ok(Some((batch, (subscription, shape, out, left, ready))));
                }
                let item = next(&mut subscription).await?;
                ready = shape.batches(&item, &out)?;
                ready.reverse();
            }
        });
    let rows = Rows { names, schema, batches: batches.boxed(), endless: true, tag: "SELECT", binary: false };
    Ok(match session.settings.time_zone() {
        Some(zone) => shown_in(rows, zone),
        None => rows,
    })
}

/// Rows with their instants as a session's time zone has them.
fn shown_in(rows: Rows, zone: &str) -> Rows {
    let fields = rows.schema.fields().iter().map(|field| planner::field_in_zone(field, zone));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let shown = Arc::clone(&schema);
    let batches = rows.batches.map(move |batch| {
        let batch = batch?;
        let pairs = batch.columns().iter().zip(shown.fields());
        let columns =
            pairs.map(|(column, field)| cast(column, field.data_type())).collect::<Result<_, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(&shown), columns)?)
    });
    Rows { schema, batches: batches.boxed(), ..rows }
}

async fn next(subscription: &mut Subscription) -> Result<PushItem, WireError> {
    match subscription.next().await {
        Some(item) => Ok(item?),
        None => Err(WireError::shutting_down()),
    }
}

/// How changes become rows.
struct Shape {
    /// SUBSCRIBE: every change with epoch and sign. Else EMIT CHANGES: new states of keys.
    changes: bool,
    progress: bool,
    key: Vec<usize>,
    schema: SchemaRef,
}

impl Shape {
    fn batches(&self, item: &PushItem, out: &SchemaRef) -> Result<Vec<RecordBatch>, WireError> {
        let mut batches = Vec::new();
        if self.changes {
            for change in &item.changes {
                batches.push(signed(item.epoch, &change.rows, change.weights.as_ref(), out)?);
            }
            if batches.is_empty() && self.progress {
                let mut columns: Vec<ArrayRef> =
                    vec![Arc::new(Int64Array::from(vec![i64::try_from(item.epoch).unwrap_or(i64::MAX)]))];
                columns.extend(out.fields().iter().skip(1).map(|f| new_null_array(f.data_type(), 1)));
                batches.push(RecordBatch::try_new(Arc::clone(out), columns)?);
            }
            return Ok(batches);
        }
        let deleted = self.deletions(item)?;
        for change in &item.changes {
            let rows = match &change.weights {
                None => change.rows.clone(),
                Some(weights) => repeated(&change.rows, weights)?,
            };
            if rows.num_rows() > 0 {
                batches.push(RecordBatch::try_new(Arc::clone(out), rows.columns().to_vec())?);
            }
        }
        batches.extend(deleted);
        Ok(batches)
    }

    /// Keys that are gone, with NULLs for the rest.
    fn deletions(&self, item: &PushItem) -> Result<Option<RecordBatch>, WireError> {
        if self.key.is_empty() {
            return Ok(None);
        }
        let sorts =
            self.key.iter().map(|k| SortField::new(self.schema.field(*k).data_type().clone())).collect();
        let converter = RowConverter::new(sorts)?;
        let key = |rows: &RecordBatch| -> Vec<ArrayRef> {
            self.key.iter().map(|k| Arc::clone(rows.column(*k))).collect()
        };
        let mut present = std::collections::HashSet::new();
        for change in &item.changes {
            let encoded = converter.convert_columns(&key(&change.rows))?;
            present
                .extend((0..change.len()).filter(|r| change.weight(*r) > 0).map(|r| encoded.row(r).owned()));
        }
        let mut gone = Vec::new();
        for change in &item.changes {
            let encoded = converter.convert_columns(&key(&change.rows))?;
            let mask: BooleanArray = (0..change.len())
                .map(|r| Some(change.weight(r) < 0 && !present.contains(&encoded.row(r).owned())))
                .collect();
            gone.push(filter_record_batch(&change.rows, &mask)?);
        }
        let Some(first) = gone.first() else { return Ok(None) };
        let gone = datafusion::arrow::compute::concat_batches(&first.schema(), &gone)?;
        if gone.num_rows() == 0 {
            return Ok(None);
        }
        let columns = (0..self.schema.fields().len())
            .map(|i| {
                if self.key.contains(&i) {
                    Arc::clone(gone.column(i))
                } else {
                    new_null_array(self.schema.field(i).data_type(), gone.num_rows())
                }
            })
            .collect();
        Ok(Some(RecordBatch::try_new(Arc::clone(&self.schema), columns)?))
    }
}

/// Rows of positive weight, as often as it says.
fn repeated(rows: &RecordBatch, weights: &Int64Array) -> Result<RecordBatch, WireError> {
    let mut indices = Vec::new();
    for (row, weight) in (0u32..).zip(weights.values()) {
        indices.extend((0..(*weight).max(0)).map(|_| row));
    }
    Ok(datafusion::arrow::compute::take_record_batch(rows, &UInt32Array::from(indices))?)
}

/// Every change as rows: epoch, sign, values; as many rows as the weight says.
fn signed(
    epoch: u64,
    rows: &RecordBatch,
    weights: Option<&Int64Array>,
    out: &SchemaRef,
) -> Result<RecordBatch, WireError> {
    let mut indices: Vec<u32> = Vec::new();
    let mut ops: Vec<&str> = Vec::new();
    for (row, index) in (0..rows.num_rows()).zip(0u32..) {
        let weight = weights.map_or(1, |w| w.value(row));
        for _ in 0..weight.abs() {
            indices.push(index);
            ops.push(if weight > 0 { "+" } else { "-" });
        }
    }
    let indices = UInt32Array::from(indices);
    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from_value(epoch, ops.len())), Arc::new(StringArray::from(ops))];
    for column in rows.columns() {
        columns.push(take(column, &indices, None)?);
    }
    Ok(RecordBatch::try_new(Arc::clone(out), columns)?)
}
