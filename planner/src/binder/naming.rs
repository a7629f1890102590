//! Names of result columns, as PostgreSQL gives them: `count(*)` is `count`, `1 + 1` is `?column?`.
//!
//! DataFusion wants different names, PostgreSQL does not. A repeated name gets a tail after a
//! character no identifier has; [`visible_name`] cuts it off again at the wire.
//!
//! Source: PostgreSQL, FigureColname in parse_target.c.

use std::collections::HashSet;

use sql::sqlparser::ast::{BinaryOperator, Expr, Function, Ident, ObjectNamePart, Select, SelectItem};

/// Begins the tail of a repeated name.
const TAIL: char = '\u{1}';

/// The name a client sees.
pub fn visible_name(name: &str) -> &str {
    name.split(TAIL).next().unwrap_or(name)
}

/// Gives every unnamed item of a select list its name. With `shared`, the columns that several sources of
/// the query have, names are ksqlDB's: an expression's is ksql_col_0, ksql_col_1 and so on.
pub(super) fn name_items(select: &mut Select, shared: Option<&HashSet<String>>) {
    let mut taken: HashSet<String> = HashSet::new();
    if let Some(shared) = shared {
        number_items(select, shared);
    }
    for item in &mut select.projection {
        let (expr, name, quoted) = match item {
            SelectItem::ExprWithAlias { expr, alias } => (expr, sql::fold(alias), true),
            SelectItem::UnnamedExpr(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => {
                let name = expression_name(expr).unwrap_or_default();
                if taken.insert(name.clone()) {
                    continue;
                }
                (expr, name, false)
            }
            SelectItem::UnnamedExpr(expr) => {
                let name = expression_name(expr).unwrap_or_else(|| "?column?".to_owned());
                (expr, name, false)
            }
            _ => continue,
        };
        if quoted && taken.insert(name.clone()) {
            continue;
        }
        let unique = unique_name(name, &mut taken);
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', unique) };
    }
}

/// Source: ksqlDB, names of columns without an alias.
fn number_items(select: &mut Select, shared: &HashSet<String>) {
    let named: HashSet<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(sql::fold(alias)),
            SelectItem::UnnamedExpr(expr) if is_name(expr) => expression_name(expr),
            _ => None,
        })
        .collect();
    prefix_repeated(select, shared);
    let mut names = (0..).map(|n| format!("ksql_col_{n}")).filter(|name| !named.contains(name));
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && !is_name(expr)
            && let Some(name) = names.next()
        {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', name) };
        }
    }
}

/// Columns of a join whose names do not tell whose they are are named after their relation too.
fn prefix_repeated(select: &mut Select, shared: &HashSet<String>) {
    let name = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(_)) => expression_name(expr),
        _ => None,
    };
    let names: Vec<Option<String>> = select.projection.iter().map(name).collect();
    let repeated = |name: &String| {
        shared.contains(name) || names.iter().flatten().filter(|other| *other == name).count() > 1
    };
    for (item, name) in select.projection.iter_mut().zip(&names) {
        if let SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) = item
            && let Some(name) = name.as_ref().filter(|name| repeated(name))
            && let [.., relation, _] = parts.as_slice()
        {
            let name = format!("{}_{name}", sql::fold(relation));
            let expr = Expr::CompoundIdentifier(parts.clone());
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
        }
    }
}

/// Whether an expression is a column, or a field of one.
fn is_name(expr: &Expr) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::BinaryOp { op: BinaryOperator::Arrow, .. } => expression_name(expr).is_some(),
        _ => false,
    }
}

fn unique_name(name: String, taken: &mut HashSet<String>) -> String {
    let mut unique = name.clone();
    let mut n = 1;
    while !taken.insert(unique.clone()) {
        n += 1;
        unique = format!("{name}{TAIL}{n}");
    }
    unique
}

/// The name of an item of a select list; None for one that is several.
pub(super) fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(sql::fold(alias)),
        SelectItem::UnnamedExpr(expr) => Some(expression_name(expr).unwrap_or_else(|| "?column?".to_owned())),
        _ => None,
    }
}

/// PostgreSQL's name for an expression; None where it says `?column?`.
fn expression_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(sql::fold(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(sql::fold),
        Expr::Function(Function { name, .. }) => match name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => Some(sql::fold(ident)),
            _ => None,
        },
        Expr::BinaryOp { op: BinaryOperator::Arrow, right, .. } => match right.as_ref() {
            Expr::Identifier(field) => Some(sql::fold(field)),
            _ => None,
        },
        Expr::Cast { expr, data_type, .. } => expression_name(expr)
            .or_else(|| Some(data_type.to_string().to_lowercase().split('(').next()?.to_owned())),
        Expr::Nested(expr) | Expr::Collate { expr, .. } => expression_name(expr),
        Expr::Case { else_result, .. } => {
            else_result.as_ref().and_then(|e| expression_name(e)).or_else(|| Some("case".to_owned()))
        }
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Overlay { .. } => Some("overlay".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::TypedString(typed) => Some(typed.data_type.to_string().to_lowercase()),
        _ => None,
    }
}
