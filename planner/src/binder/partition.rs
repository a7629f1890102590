//! PARTITION BY of a whole query: its expressions become the first columns, the key of the result's
//! records.
//!
//! Source: ksqlDB, "Partition data to enable joins": the key stands before the other columns.

use sql::sqlparser::ast::{Expr, Select, SelectItem, SetExpr, Value};

use super::pseudo;
use crate::catalog::Catalog;
use crate::error::Error;

/// Puts what a query is partitioned by first in its select list.
pub(super) fn apply(select: &mut Select, by: &str, catalog: &Catalog) -> Result<(), Error> {
    pseudo::expand_wildcards(select, catalog, false);
    let mut first = Vec::new();
    let all = sql::parse_expressions(by)?;
    if all.len() > 1 && all.iter().any(is_null) {
        return Err(Error::Definition(
            "PARTITION BY NULL leaves records without a key: NULL is not one of several".into(),
        ));
    }
    for wanted in all {
        if is_null(&wanted) {
            continue;
        }
        match select.projection.iter().position(|item| is(item, &wanted)) {
            Some(at) => first.push(select.projection.remove(at)),
            None => first.push(SelectItem::UnnamedExpr(wanted)),
        }
    }
    select.projection.splice(0..0, first);
    Ok(())
}

/// How many columns of a query's result are the key that PARTITION BY names; None without PARTITION BY.
pub(crate) fn width(query: &sql::Query) -> Result<Option<usize>, Error> {
    let SetExpr::Select(select) = query.ast.body.as_ref() else { return Ok(None) };
    let Some(by) = sql::take_clauses(&mut select.as_ref().clone()).partition_by else { return Ok(None) };
    Ok(Some(sql::parse_expressions(&by)?.iter().filter(|e| !is_null(e)).count()))
}

fn is_null(expr: &Expr) -> bool {
    matches!(expr, Expr::Value(value) if value.value == Value::Null)
}

/// Whether an item of the select list is the expression, or has its name.
fn is(item: &SelectItem, wanted: &Expr) -> bool {
    let last = |e: &Expr| match e {
        Expr::Identifier(name) => Some(sql::fold(name)),
        Expr::CompoundIdentifier(parts) => parts.last().map(sql::fold),
        _ => None,
    };
    let same = |e: &Expr| e == wanted || (last(wanted).is_some() && last(e) == last(wanted));
    match item {
        SelectItem::UnnamedExpr(expr) => same(expr),
        SelectItem::ExprWithAlias { expr, alias } => same(expr) || last(wanted) == Some(sql::fold(alias)),
        _ => false,
    }
}
