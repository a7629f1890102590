//! `s->*`: all fields of a struct, each a column of its name.
//!
//! Invariant: it stands for fields that a relation's column is declared to have; of a struct that an expression
//! makes, fields are named one by one. Source: ksqlDB, "Struct: select all fields".

use datafusion::arrow::datatypes::{DataType, Fields};
use sql::sqlparser::ast::{BinaryOperator, Expr, Ident, Select, SelectItem};

use super::pseudo;
use crate::catalog::Catalog;
use crate::error::{Error, Result};

/// Puts the fields in the place of each `s->*` in a select list.
///
/// # Errors
/// What stands before it is no struct that a relation has.
pub(super) fn expand(select: &mut Select, catalog: &Catalog) -> Result<()> {
    if !select.projection.iter().any(|item| whole(item).is_some()) {
        return Ok(());
    }
    for item in std::mem::take(&mut select.projection) {
        let Some(of) = whole(&item) else {
            select.projection.push(item);
            continue;
        };
        let fields = fields(of, select, catalog).ok_or_else(|| Error::NotSupported {
            what: format!("{of}->* of what is no struct of a relation"),
            continuous: false,
            hint: Some("name its fields one by one".into()),
        })?;
        for field in &fields {
            let name = Ident::with_quote('"', field.name());
            let expr = Expr::BinaryOp {
                left: Box::new(of.clone()),
                op: BinaryOperator::Arrow,
                right: Box::new(Expr::Identifier(name.clone())),
            };
            select.projection.push(SelectItem::ExprWithAlias { expr, alias: name });
        }
    }
    Ok(())
}

/// What stands before `->*`.
fn whole(item: &SelectItem) -> Option<&Expr> {
    let SelectItem::UnnamedExpr(Expr::BinaryOp { left, op: BinaryOperator::Arrow, right }) = item else {
        return None;
    };
    matches!(right.as_ref(), Expr::Identifier(name) if name.value == "*").then_some(left)
}

fn fields(expr: &Expr, select: &Select, catalog: &Catalog) -> Option<Fields> {
    match of_type(expr, select, catalog)? {
        DataType::Struct(fields) => Some(fields),
        _ => None,
    }
}

fn of_type(expr: &Expr, select: &Select, catalog: &Catalog) -> Option<DataType> {
    match expr {
        Expr::Nested(inner) => of_type(inner, select, catalog),
        Expr::Identifier(name) => column(None, name, select, catalog),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [relation, name] => column(Some(relation), name, select, catalog),
            _ => None,
        },
        Expr::BinaryOp { left, op: BinaryOperator::Arrow, right } => {
            let Expr::Identifier(name) = right.as_ref() else { return None };
            let fields = fields(left, select, catalog)?;
            fields.find(&sql::fold(name)).map(|(_, field)| field.data_type().clone())
        }
        _ => None,
    }
}

fn column(of: Option<&Ident>, name: &Ident, select: &Select, catalog: &Catalog) -> Option<DataType> {
    let factors = select.from.iter().flat_map(|table| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    });
    factors.filter_map(|factor| pseudo::source(factor, catalog)).find_map(|(alias, relation)| {
        let is_meant = of.is_none_or(|of| sql::fold(of) == sql::fold(&alias));
        let at = relation.column(&sql::fold(name)).filter(|_| is_meant)?;
        Some(relation.columns[at].data_type.clone())
    })
}
