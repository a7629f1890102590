//! `SELECT pg_notify(channel, payload)`: NOTIFY with values that are computed, one for each row.
//!
//! Source: PostgreSQL, "NOTIFY".

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use futures::{StreamExt, stream};
use sql::Query;
use sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, SelectItem, SetExpr};

use super::{Parameters, Rows, query};
use crate::pg::WireError;
use crate::session::Session;

/// Its name, which is that of its column too.
const PG_NOTIFY: &str = "pg_notify";

/// The question for the channels and payloads, of a query that is nothing but a call of pg_notify().
pub(super) fn told(query: &Query) -> Option<Query> {
    let SetExpr::Select(select) = query.ast.body.as_ref() else { return None };
    let [
        SelectItem::UnnamedExpr(Expr::Function(call))
        | SelectItem::ExprWithAlias { expr: Expr::Function(call), .. },
    ] = select.projection.as_slice()
    else {
        return None;
    };
    call.name.0.last().and_then(|part| part.as_ident()).filter(|name| sql::fold(name) == PG_NOTIFY)?;
    let FunctionArguments::List(list) = &call.args else { return None };
    let arguments = list.args.iter().map(|argument| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(SelectItem::UnnamedExpr(expr.clone())),
        _ => None,
    });
    let arguments = arguments.collect::<Option<Vec<_>>>()?;
    if arguments.len() != 2 {
        return None;
    }
    let mut told = query.clone();
    if let SetExpr::Select(select) = told.ast.body.as_mut() {
        select.projection = arguments;
    }
    Some(told)
}

/// Tells what a question answers: a channel and a payload in each row.
pub(super) async fn notify(
    session: &mut Session,
    told: &Query,
    parameters: &Parameters,
) -> Result<Rows, WireError> {
    let mut rows = query::answer(session, told, parameters).await?;
    let mut count = 0;
    while let Some(batch) = rows.batches.next().await.transpose()? {
        let texts = batch.columns().iter().map(|column| cast(column, &DataType::Utf8));
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let (channels, payloads) = (texts[0].as_string::<i32>(), texts[1].as_string::<i32>());
        for row in 0..batch.num_rows() {
            if channels.is_null(row) || channels.value(row).is_empty() {
                return Err(WireError::new("22023", "channel name cannot be empty"));
            }
            let payload = if payloads.is_valid(row) { payloads.value(row) } else { "" };
            session.notify(channels.value(row), payload)?;
        }
        count += batch.num_rows();
        // One that never waits could not be cancelled.
        tokio::task::yield_now().await;
    }
    let schema = Arc::new(Schema::new(vec![Field::new(PG_NOTIFY, DataType::Utf8, true)]));
    let nothing = Arc::new(StringArray::from(vec![""; count]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![nothing])?;
    Ok(Rows {
        names: vec![PG_NOTIFY.to_owned()],
        schema,
        batches: stream::iter([Ok(batch)]).boxed(),
        endless: false,
        tag: "SELECT",
        binary: false,
    })
}
