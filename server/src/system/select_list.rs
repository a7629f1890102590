//! The columns of a select list as PostgreSQL shows them: their names and types.

use planner::Catalog;
use sql::sqlparser::ast::{BinaryOperator, DataType, Expr, Ident, SelectItem, UnaryOperator, Value};

use super::expressions::{arguments, bare_name, literal, text};
use super::known::{is_known, registry};
use super::pg_catalog::oid_of;

/// `'name'::regclass` as a column of its own is shown as the name it is; a call that is put in keeps the
/// name of its column.
///
/// A number is an integer where it fits into one, as in PostgreSQL: clients read the types of results.
pub(super) fn shown(item: &mut SelectItem, catalog: &Catalog) {
    let name = match item {
        SelectItem::UnnamedExpr(Expr::Function(function)) => {
            let name = bare_name(function);
            is_known(&name).then_some(name)
        }
        SelectItem::UnnamedExpr(Expr::Cast { expr, data_type, .. }) if literal(expr).is_some() => {
            registry(data_type)
        }
        _ => None,
    };
    if let (Some(name), SelectItem::UnnamedExpr(expr)) = (name, &*item) {
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
    }
    if let SelectItem::UnnamedExpr(expr) = item
        && is_small_integer(expr)
    {
        let expr = expr.clone();
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', "?column?") };
    }
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return };
    let replaced = match &*expr {
        number if is_small_integer(number) => Some(sql::cast_to(number.clone(), DataType::Int(None))),
        Expr::Cast { expr: inner, data_type, .. }
            if registry(data_type).is_some() && literal(inner).is_some() =>
        {
            Some(sql::cast_to(inner.as_ref().clone(), DataType::Text))
        }
        Expr::Function(function) => {
            let name = bare_name(function);
            let registry = name.strip_prefix("to_").filter(|registry| registry.starts_with("reg"));
            let argument = arguments(function).first().and_then(|argument| literal(argument));
            registry
                .zip(argument)
                .map(|(registry, name)| text(oid_of(catalog, registry, name).map(|_| name.to_owned())))
        }
        _ => None,
    };
    if let Some(replaced) = replaced {
        *expr = replaced;
    }
}

/// Whether an expression is made of integers alone, and its value is one of four bytes.
pub(super) fn is_small_integer(expr: &Expr) -> bool {
    integer(expr).is_some_and(|n| i32::try_from(n).is_ok())
}

fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok(),
            _ => None,
        },
        Expr::Nested(inner) => integer(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => integer(expr)?.checked_neg(),
        Expr::BinaryOp { left, op, right } => {
            let (left, right) = (integer(left)?, integer(right)?);
            match op {
                BinaryOperator::Plus => left.checked_add(right),
                BinaryOperator::Minus => left.checked_sub(right),
                BinaryOperator::Multiply => left.checked_mul(right),
                _ => None,
            }
        }
        _ => None,
    }
}
