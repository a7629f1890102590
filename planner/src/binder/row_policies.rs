//! The rows of a relation that its policies show a role, in the place of the relation.
//!
//! Invariant: whatever gives a name its meaning for a role that sees some rows only, gets these. The condition is
//! planned with everybody's rights: what it reads of other relations, the role need not be able to read.
//! Source: PostgreSQL, "Row Security Policies".

use std::ops::ControlFlow;

use datafusion::logical_expr::LogicalPlan;
use sql::sqlparser::ast::{Expr, Query, Value, VisitMut, VisitorMut};

use super::{BindOptions, Binder};
use crate::catalog::Relation;
use crate::error::Result;
use crate::source::RelationSource;

/// What the conditions of policies call who asks. Who has logged in is one thing, who asks another.
const WHO_ASKS: [&str; 3] = ["current_user", "current_role", "user"];

/// The rows that fulfil `condition` for `role`, in the layout of the relation's source; what the condition reads is
/// read with the rights that `binder` has.
pub(super) fn shown(
    binder: &Binder<'_>,
    relation: &Relation,
    pseudo: bool,
    condition: &str,
    role: &str,
) -> Result<LogicalPlan> {
    let schema = RelationSource::schema_of(relation, pseudo);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let columns: Vec<String> = schema.fields().iter().map(|field| quoted(field.name())).collect();
    let text = format!("SELECT {} FROM {} WHERE {condition}", columns.join(", "), quoted(&relation.name));
    let mut query = sql::parse_query(&text)?;
    name_who_asks(&mut query.ast, role);
    binder.plan(&query, BindOptions::default())
}

fn name_who_asks(query: &mut Query, role: &str) {
    struct Name<'a>(&'a str);
    impl VisitorMut for Name<'_> {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let named = match expr {
                Expr::Function(function) => Some(function.name.to_string()),
                Expr::Identifier(ident) if ident.quote_style.is_none() => Some(ident.value.clone()),
                _ => None,
            };
            if named.is_some_and(|name| WHO_ASKS.contains(&name.to_lowercase().as_str())) {
                *expr = Expr::value(Value::SingleQuotedString(self.0.to_owned()));
            }
            ControlFlow::Continue(())
        }
    }
    // Nothing breaks it off.
    let _ = query.visit(&mut Name(role));
}
