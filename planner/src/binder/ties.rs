//! FETCH FIRST n ROWS WITH TIES: the first rows, and all that the order cannot tell from the last of them.
//!
//! They are the rows whose rank is at most n. Source: PostgreSQL, "SELECT", LIMIT clause.

use sql::sqlparser::ast::{
    Expr, Fetch, Ident, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Value,
};

use super::spelling::call;
use crate::error::{Error, Result};

/// The name of the rank, which no column of a user has.
const RANK: &str = "\u{1}rank";

/// Puts the query in the place of itself with the clause.
///
/// # Errors
/// Without ORDER BY there are no ties; with OFFSET it is not supported.
pub(super) fn apply(query: &mut Query, fetch: Fetch) -> Result<()> {
    let order = match query.order_by.take().map(|order| order.kind) {
        Some(OrderByKind::Expressions(order)) if !order.is_empty() => order,
        _ => return Err(Error::Definition("WITH TIES cannot be specified without ORDER BY clause".into())),
    };
    if query.limit_clause.is_some() {
        return Err(Error::NotSupported {
            what: "OFFSET beside WITH TIES".into(),
            continuous: false,
            hint: Some("rank() OVER (ORDER BY …) numbers rows with their ties".into()),
        });
    }
    let count = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".into(), false)));
    let with = query.with.take();
    let mut inner = query.clone();
    inner.order_by = None;
    if !is_ranked_as_it_is(&inner) {
        inner = derived("*", inner)?;
    }
    let SetExpr::Select(select) = inner.body.as_mut() else { return Ok(()) };
    rank(select, order);
    let rank = || Expr::Identifier(Ident::with_quote('"', RANK));
    let mut outer = derived(&format!("* EXCLUDE (\"{RANK}\")"), inner)?;
    if let SetExpr::Select(select) = outer.body.as_mut() {
        select.selection = Some(Expr::BinaryOp {
            left: Box::new(rank()),
            op: sql::sqlparser::ast::BinaryOperator::LtEq,
            right: Box::new(count),
        });
    }
    let ordered = sql::parse_query(&format!("SELECT 1 ORDER BY \"{RANK}\""))?;
    *query = Query { with, order_by: ordered.ast.order_by, ..outer };
    Ok(())
}

/// Whether a rank beside the columns of a query says nothing of other columns.
fn is_ranked_as_it_is(query: &Query) -> bool {
    matches!(query.body.as_ref(), SetExpr::Select(select) if select.distinct.is_none())
}

/// SELECT columns FROM (query).
fn derived(columns: &str, query: Query) -> Result<Query> {
    let mut outer = *sql::parse_query(&format!("SELECT {columns} FROM (SELECT 1) \"\u{1}ties\""))?.ast;
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(table) = select.from.first_mut()
        && let sql::sqlparser::ast::TableFactor::Derived { subquery, .. } = &mut table.relation
    {
        **subquery = query;
    }
    Ok(outer)
}

/// Adds the rank to the columns of a SELECT.
fn rank(select: &mut Select, order: Vec<OrderByExpr>) {
    let order = order.into_iter().map(|by| OrderByExpr { expr: meant(by.expr, select), ..by }).collect();
    let mut function = call("rank", Vec::new());
    if let Expr::Function(function) = &mut function {
        function.over = Some(sql::sqlparser::ast::WindowType::WindowSpec(sql::sqlparser::ast::WindowSpec {
            window_name: None,
            partition_by: Vec::new(),
            order_by: order,
            window_frame: None,
        }));
    }
    let alias = Ident::with_quote('"', RANK);
    select.projection.push(SelectItem::ExprWithAlias { expr: function, alias });
}

/// What an ORDER BY names: a column of the result by its place or its name, or what it says.
fn meant(by: Expr, select: &Select) -> Expr {
    let item = match &by {
        Expr::Value(value) => match &value.value {
            Value::Number(place, _) => {
                place.parse::<usize>().ok().and_then(|place| select.projection.get(place.checked_sub(1)?))
            }
            _ => None,
        },
        Expr::Identifier(name) => select.projection.iter().find(|item| {
            matches!(item, SelectItem::ExprWithAlias { alias, .. } if sql::fold(alias) == sql::fold(name))
        }),
        _ => None,
    };
    match item {
        Some(SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr)) => expr.clone(),
        _ => by,
    }
}
