//! ASOF JOIN: each left row with the one right row that lies nearest before it, or behind it, in time.
//!
//! It is a LATERAL subquery: of the right rows for which the condition holds, the first by time. A right
//! row that comes or goes later changes the answer, as everywhere.
//! Source: Snowflake's and DuckDB's ASOF JOIN; without LEFT a row that finds none is left out.

use std::ops::ControlFlow;

use sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, TableAlias, TableFactor, Value, Visit,
    Visitor,
};

use crate::error::Error;

/// Rewrites a join whose condition was marked ASOF.
pub(super) fn rewrite(join: &mut Join, condition: &Expr) -> Result<(), Error> {
    let outer = match &join.join_operator {
        JoinOperator::Join(_) | JoinOperator::Inner(_) => false,
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => true,
        _ => return Err(Error::Definition("ASOF joins are ASOF JOIN and ASOF LEFT JOIN".into())),
    };
    let (name, alias) = match &join.relation {
        TableFactor::Table { name, alias, args: None, .. } => {
            let last = name.0.last().and_then(|part| part.as_ident()).cloned();
            (name.to_string(), alias.as_ref().map(|a| a.name.clone()).or(last))
        }
        TableFactor::Derived { lateral: false, subquery, alias: Some(alias), .. } => {
            (format!("({subquery})"), Some(alias.name.clone()))
        }
        _ => return Err(Error::Definition("ASOF JOIN needs a relation, or a subquery with a name".into())),
    };
    let alias = alias.ok_or_else(|| Error::Definition("ASOF JOIN needs a relation".into()))?;
    let (time, newest) = nearest(condition, &alias)?;
    let order = if newest { "DESC" } else { "ASC" };
    let text = format!(
        "SELECT * FROM {name} AS {alias} WHERE ({condition}) AND {time} IS NOT NULL ORDER BY {time} {order} LIMIT 1"
    );
    join.relation = TableFactor::Derived {
        lateral: true,
        subquery: sql::parse_query(&text)?.ast,
        alias: Some(TableAlias { explicit: true, name: alias, columns: Vec::new(), at: None }),
        sample: None,
    };
    join.join_operator = match outer {
        true => JoinOperator::LeftOuter(JoinConstraint::On(Expr::value(Value::Boolean(true)))),
        false => JoinOperator::CrossJoin(JoinConstraint::None),
    };
    Ok(())
}

/// The right side of the one inequality, and whether the largest is the nearest.
fn nearest<'a>(condition: &'a Expr, right: &Ident) -> Result<(&'a Expr, bool), Error> {
    let mut found = Vec::new();
    inequalities(condition, &mut found);
    let is_right = |e: &Expr| names(e, Some(right));
    match found.as_slice() {
        [(l, op, r)] => {
            let right_is_less = matches!(op, BinaryOperator::Gt | BinaryOperator::GtEq);
            match (is_right(l), is_right(r)) {
                (false, true) if names(l, None) => Ok((r, right_is_less)),
                (true, false) if names(r, None) => Ok((l, !right_is_less)),
                _ => Err(Error::Definition(format!(
                    "ASOF JOIN compares a time of the left side with one of \"{}\", named with their relations",
                    right.value
                ))),
            }
        }
        _ => Err(Error::Definition("ASOF JOIN needs one comparison by <, <=, > or >= of two times".into())),
    }
}

fn inequalities<'a>(expr: &'a Expr, found: &mut Vec<(&'a Expr, &'a BinaryOperator, &'a Expr)>) {
    match expr {
        Expr::Nested(inner) => inequalities(inner, found),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            inequalities(left, found);
            inequalities(right, found);
        }
        Expr::BinaryOp { left, op, right } => {
            use BinaryOperator::{Gt, GtEq, Lt, LtEq};
            if matches!(op, Gt | GtEq | Lt | LtEq) {
                found.push((left, op, right));
            }
        }
        _ => {}
    }
}

/// Whether an expression names a column, of one relation or of any.
fn names(expr: &Expr, relation: Option<&Ident>) -> bool {
    struct Find<'a>(Option<&'a Ident>);
    impl Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) if self.0.is_none() => ControlFlow::Break(()),
                Expr::CompoundIdentifier(parts) => {
                    let relation = parts.iter().rev().nth(1).map(sql::fold);
                    match self.0 {
                        Some(wanted) if relation != Some(sql::fold(wanted)) => ControlFlow::Continue(()),
                        _ => ControlFlow::Break(()),
                    }
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Find(relation)).is_break()
}
