//! EXPLAIN: the plan of a question, the dataflow of a continuous query, without making anything.

use executor::PullContext;
use planner::{explain as dataflow_text, explain_with};
use sql::{Explain, Statement};

use super::{Outcome, query, text_rows};
use crate::pg::WireError;
use crate::session::Session;

pub(super) async fn explain(session: &mut Session, explain: &Explain) -> Result<Outcome, WireError> {
    let running = matches!(explain.statement.as_ref(), Statement::Describe(_));
    if explain.analyze && !running {
        return Err(WireError::unsupported("EXPLAIN ANALYZE of a statement")
            .hint("EXPLAIN ANALYZE with the name of a view shows how its query runs."));
    }
    let snapshot = session.snapshot().await?;
    let text = match explain.statement.as_ref() {
        Statement::Describe(name) => {
            let relation = snapshot.catalog.resolve(name)?;
            let (Some(dataflow), Some(status)) = (relation.dataflow(), snapshot.query(relation.id)) else {
                let message = format!("\"{}\" has no query that runs", relation.name);
                return Err(WireError::new("42809", message));
            };
            explain_with(dataflow, &|id| match status.operators.get(id) {
                Some(o) if explain.analyze => {
                    let shared = if o.shared { ", shared" } else { "" };
                    format!(
                        "  (rows {}, of them retracted {}, {} µs, {} bytes{shared})",
                        o.rows_out, o.rows_retracted, o.busy_us, o.state_bytes
                    )
                }
                _ => String::new(),
            })
        }
        Statement::Query(q) if q.emit.is_some() => {
            let (dataflow, _, _) = query::plan_push(session, &snapshot, q)?;
            dataflow_text(&dataflow)
        }
        Statement::Query(q) => {
            let bound = query::bind(session, &snapshot, q)?;
            let context = PullContext { snapshot, state: session.state() };
            context.optimized(bound.plan)?.display_indent().to_string()
        }
        Statement::CreateAs(create) => {
            let binder = session.binder(&snapshot.catalog);
            let relation = planner::plan_create_as(&binder, create, 0, "")?;
            match relation.dataflow() {
                Some(dataflow) => dataflow_text(dataflow),
                None => "View: expanded where it is named\n".to_owned(),
            }
        }
        _ => {
            return Err(WireError::unsupported("EXPLAIN of this statement")
                .hint("EXPLAIN SELECT and EXPLAIN CREATE … AS are."));
        }
    };
    let lines = text.lines().map(|line| vec![Some(line.to_owned())]).collect();
    Ok(Outcome::Rows(text_rows(&["QUERY PLAN"], lines)?))
}
