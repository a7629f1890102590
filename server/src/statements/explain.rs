//! EXPLAIN: the plan of a question, the dataflow of a continuous query, without making anything.

use executor::PullContext;
use planner::{Binder, explain as dataflow_text};
use sql::{Explain, Statement};

use super::{Outcome, query, text_rows};
use crate::pg::WireError;
use crate::session::Session;

pub(super) async fn explain(session: &mut Session, explain: &Explain) -> Result<Outcome, WireError> {
    if explain.analyze {
        return Err(WireError::unsupported("EXPLAIN ANALYZE")
            .hint("millpond.queries shows rows, time and state of each query."));
    }
    let snapshot = session.snapshot().await?;
    let text = match explain.statement.as_ref() {
        Statement::Query(q) if q.emit.is_some() => {
            let (dataflow, _, _) = query::plan_push(session, &snapshot, q)?;
            dataflow_text(&dataflow)
        }
        Statement::Query(q) => {
            let bound = query::bind(session, &snapshot, q)?;
            let context = PullContext { snapshot, state: session.shared.state.clone() };
            context.optimized(bound.plan)?.display_indent().to_string()
        }
        Statement::CreateAs(create) => {
            let binder = Binder::new(&snapshot.catalog, &session.shared.state);
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
