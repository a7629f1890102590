//! Subqueries as values, which DataFusion has in conditions only: EXISTS and IN beside other columns, and
//! ARRAY(SELECT …), as scalar subqueries over count and array_agg.
//!
//! Nothing of the outer query is moved into a subquery, so that no name changes its meaning.
//! Source: PostgreSQL, "Subquery Expressions" (the rules for NULL among them), "Array Constructors".

use std::ops::ControlFlow;

use sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, GroupByExpr, Join, JoinConstraint, JoinOperator,
    Query, Select, SelectItem, SetExpr, Value, Visit, Visitor,
};

use super::own;
use super::spelling::{binary, call, name_of};
use super::table_functions::gives_rows;

/// The name of a column that has none.
const COLUMN: &str = "\"\u{1}value\"";

/// Rewrites the subqueries of a select list. `is_aggregate` knows the calls of aggregates.
pub(super) fn select_list(select: &mut Select, is_aggregate: &dyn Fn(&Function) -> bool) {
    let values = Values { is_aggregate };
    select.projection.iter_mut().for_each(|item| own::each(item, |_| (), |expr| values.rewrite(expr)));
}

/// Conditions of inner joins with subqueries are conditions of WHERE: DataFusion has subqueries there only. A join
/// behind that pads the rows before it sees them without.
pub(super) fn out_of_joins(select: &mut Select) {
    let mut moved = select.selection.take();
    for table in &mut select.from {
        let padded = |join: &Join| {
            !matches!(
                join.join_operator,
                JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_)
            ) && !matches!(join.join_operator, JoinOperator::Left(_) | JoinOperator::LeftOuter(_))
        };
        let first = table.joins.iter().rposition(padded).map_or(0, |last| last + 1);
        for join in table.joins.iter_mut().skip(first) {
            let (JoinOperator::Join(JoinConstraint::On(on)) | JoinOperator::Inner(JoinConstraint::On(on))) =
                &mut join.join_operator
            else {
                continue;
            };
            if sql::has_subquery(on) {
                let condition = std::mem::replace(on, Expr::value(Value::Boolean(true)));
                let condition = Expr::Nested(Box::new(condition));
                moved = Some(match moved.take() {
                    Some(earlier) => binary(Expr::Nested(Box::new(earlier)), BinaryOperator::And, condition),
                    None => condition,
                });
            }
        }
    }
    select.selection = moved;
}

/// Whether an item of a select list gives several rows, or needs others than its own.
pub(super) fn item_gives_rows(item: &SelectItem) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(f) if f.over.is_some() || gives_rows(f) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    Visit::visit(item, &mut Find).is_break()
}

/// Turns subqueries into values.
struct Values<'a> {
    is_aggregate: &'a dyn Fn(&Function) -> bool,
}

impl Values<'_> {
    fn rewrite(&self, expr: &mut Expr) {
        let value = match expr {
            Expr::Exists { subquery, negated } => {
                let compared = if *negated { "= 0" } else { "> 0" };
                self.scalar(subquery, |_| format!("count(*) {compared}"))
            }
            Expr::InSubquery { expr: value, subquery, negated } => self.member(value, subquery, *negated),
            Expr::Function(function) if name_of(&function.name) == "array" => match &function.args {
                FunctionArguments::Subquery(query) => self.array(query),
                _ => None,
            },
            _ => None,
        };
        if let Some(value) = value {
            *expr = value;
        }
    }

    /// `value IN (query)`: true when it is there; unknown when it is NULL among any rows, or a NULL is there.
    fn member(&self, value: &Expr, query: &Query, negated: bool) -> Option<Expr> {
        let values =
            self.scalar(query, |column| format!("array_agg({column}) FILTER (WHERE {column} IS NOT NULL)"))?;
        let any = self.scalar(query, |_| "count(*) > 0".to_owned())?;
        let null = self.scalar(query, |column| format!("count(*) FILTER (WHERE {column} IS NULL) > 0"))?;
        let found = call("array_has", vec![values, Expr::Nested(Box::new(value.clone()))]);
        let (yes, no) = if negated { ("false", "true") } else { ("true", "false") };
        sql::parse_condition(&format!(
            "CASE WHEN {found} THEN {yes} WHEN {null} OR (({value}) IS NULL AND {any}) THEN NULL ELSE {no} END"
        ))
        .ok()
    }

    /// `ARRAY(query)`: the values in the query's order, an empty array when there are none.
    fn array(&self, query: &Query) -> Option<Expr> {
        let order = query.order_by.as_ref().map(|order| format!(" {order}")).unwrap_or_default();
        if !order.is_empty() && self.plain(query).is_none() {
            return None;
        }
        let values = self.scalar(query, |column| format!("array_agg({column}{order})"))?;
        sql::parse_condition(&format!("coalesce({values}, make_array())")).ok()
    }

    /// The scalar subquery that computes `aggregate` of the one column over the rows of a query.
    fn scalar(&self, query: &Query, aggregate: impl Fn(&str) -> String) -> Option<Expr> {
        let Some((select, column)) = self.plain(query) else {
            let value = aggregate(COLUMN);
            return sql::parse_condition(&format!(
                "(SELECT {value} FROM ({query}) AS \"\u{1}rows\" ({COLUMN}))"
            ))
            .ok();
        };
        let mut select = select.clone();
        select.projection = Vec::new();
        let rows = select.to_string();
        let from = rows.strip_prefix("SELECT").unwrap_or_default();
        sql::parse_condition(&format!("(SELECT {}{from})", aggregate(&column))).ok()
    }

    /// The SELECT of a query that gives a row for each row of its FROM and WHERE, and its column. Rows that
    /// are not wanted, by LIMIT or DISTINCT, are none of such.
    fn plain<'q>(&self, query: &'q Query) -> Option<(&'q Select, String)> {
        let SetExpr::Select(select) = query.body.as_ref() else { return None };
        let whole = query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, more) if keys.is_empty() && more.is_empty());
        if !whole || grouped || select.distinct.is_some() || select.having.is_some() || select.from.is_empty()
        {
            return None;
        }
        let column = match select.projection.first() {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => expr,
            _ => return Some((select, "NULL".to_owned())),
        };
        let each = !self.gathers(column);
        each.then(|| (select.as_ref(), column.to_string()))
    }

    /// Whether an expression is of many rows, or gives many.
    fn gathers(&self, expr: &Expr) -> bool {
        struct Find<'a>(&'a dyn Fn(&Function) -> bool);
        impl Visitor for Find<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                match expr {
                    Expr::Function(f) if self.0(f) || f.over.is_some() || gives_rows(f) => {
                        ControlFlow::Break(())
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        expr.visit(&mut Find(self.is_aggregate)).is_break()
    }
}
