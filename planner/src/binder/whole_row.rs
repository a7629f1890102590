//! The name of something in FROM where a value should be: all of its columns as one record.
//!
//! A column of that name comes first. What columns something has must be known before it is planned: those of
//! relations are, and those of subqueries whose select lists name theirs.
//!
//! Source: PostgreSQL, "Using Composite Types in Queries".

use std::cell::RefCell;
use std::collections::HashSet;

use sql::sqlparser::ast::{AccessExpr, Expr, Ident, Query, Select, SelectItem, SetExpr, TableFactor, Value};

use super::naming::item_name;
use super::own;
use super::spelling::call;
use super::using::Factor;

/// Puts records in the place of such names; `factor` knows relations.
pub(super) fn apply(select: &mut Select, factor: &dyn Fn(&TableFactor) -> Option<Factor>) {
    let in_from = select.from.iter().flat_map(|table| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    });
    let known: Vec<(Ident, Option<Vec<String>>)> = in_from
        .filter_map(|table| {
            let Factor { alias, columns, .. } = factor(table)?;
            Some((alias, columns.or_else(|| columns_of(table, factor))))
        })
        .collect();
    let aliases = select.projection.iter().filter_map(|item| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(sql::fold(alias)),
        _ => None,
    });
    let columns = known.iter().filter_map(|(_, columns)| columns.clone()).flatten();
    let taken: HashSet<String> = columns.chain(aliases).collect();
    let row_of = |expr: &Expr| {
        let Expr::Identifier(ident) = expr else { return None };
        let name = sql::fold(ident);
        let (alias, columns) = known.iter().find(|(alias, _)| sql::fold(alias) == name)?;
        let columns = columns.as_ref().filter(|_| !taken.contains(&name))?;
        Some((record(alias, columns), alias.clone()))
    };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Some((expr, alias)) = row_of(expr)
        {
            *item = SelectItem::ExprWithAlias { expr, alias };
        }
    }
    // What stands in front of a dot is no value, and what stands behind it is a name.
    let dotted: RefCell<Vec<String>> = RefCell::default();
    let enter = |expr: &mut Expr| dotted.borrow_mut().extend(names_in_dots(expr));
    let leave = |expr: &mut Expr| {
        let count = names_in_dots(expr).len();
        let mut dotted = dotted.borrow_mut();
        let outer = dotted.len() - count;
        dotted.truncate(outer);
        let is_dotted = matches!(expr, Expr::Identifier(ident) if dotted.contains(&sql::fold(ident)));
        if let Some((record, _)) = row_of(expr).filter(|_| !is_dotted) {
            *expr = record;
        }
    };
    own::each(&mut select.projection, enter, leave);
    own::each(&mut select.selection, enter, leave);
    own::each(&mut select.group_by, enter, leave);
    own::each(&mut select.having, enter, leave);
}

/// The names of `a.b[1].c`.
fn names_in_dots(expr: &Expr) -> Vec<String> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return Vec::new() };
    let fields = access_chain.iter().filter_map(|access| match access {
        AccessExpr::Dot(field) => Some(field),
        AccessExpr::Subscript(_) => None,
    });
    let begins = matches!(access_chain.first(), Some(AccessExpr::Dot(_))).then_some(root.as_ref());
    let names = begins.into_iter().chain(fields).filter_map(|name| match name {
        Expr::Identifier(name) => Some(sql::fold(name)),
        _ => None,
    });
    names.collect()
}

fn record(alias: &Ident, columns: &[String]) -> Expr {
    let field = |column: &String| {
        let name = Expr::value(Value::SingleQuotedString(column.clone()));
        [name, Expr::CompoundIdentifier(vec![alias.clone(), Ident::with_quote('"', column)])]
    };
    call("named_struct", columns.iter().flat_map(field).collect())
}

/// The columns of a subquery; None where they are not all told by their names.
fn columns_of(table: &TableFactor, factor: &dyn Fn(&TableFactor) -> Option<Factor>) -> Option<Vec<String>> {
    let TableFactor::Derived { subquery, alias, .. } = table else { return None };
    let mut columns = of_query(subquery, factor)?;
    let names = alias.iter().flat_map(|alias| &alias.columns);
    names.zip(&mut columns).for_each(|(name, column)| *column = sql::fold(&name.name));
    Some(columns)
}

fn of_query(query: &Query, factor: &dyn Fn(&TableFactor) -> Option<Factor>) -> Option<Vec<String>> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [table] = select.from.as_slice() else {
        return select.projection.iter().map(item_name).collect();
    };
    let of_table = |table: &TableFactor| factor(table)?.columns.or_else(|| columns_of(table, factor));
    let mut columns = Vec::new();
    for item in &select.projection {
        match item {
            SelectItem::Wildcard(options) if table.joins.is_empty() && options.opt_exclude.is_none() => {
                columns.extend(of_table(&table.relation)?);
            }
            item => columns.push(item_name(item)?),
        }
    }
    Some(columns)
}
