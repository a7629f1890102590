//! Pseudo-columns are there only for a query that names one, so that `*` never shows them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sql::sqlparser::ast::{
    Expr, Ident, ObjectName, ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, Visit, Visitor, WildcardAdditionalOptions,
};

use crate::catalog::{Catalog, PSEUDO_COLUMNS, Relation};

/// Whether a query names a pseudo-column.
pub(super) fn mentions(query: &Query) -> bool {
    struct Find;
    impl Visitor for Find {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let last = match expr {
                Expr::Identifier(ident) => Some(ident),
                Expr::CompoundIdentifier(parts) => parts.last(),
                Expr::Function(function) if super::ksql::needs_offset(function) => {
                    return ControlFlow::Break(());
                }
                _ => None,
            };
            match last {
                Some(ident) if is_pseudo(&sql::fold(ident)) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    query.visit(&mut Find).is_break()
}

fn is_pseudo(name: &str) -> bool {
    PSEUDO_COLUMNS.iter().any(|(pseudo, _)| *pseudo == name)
}

/// Replaces `*` and `t.*` by the columns they stand for, where every source is a relation of the catalog.
/// With `prefixed`, those of a join are named after their relation too: `t_column`.
///
/// Source: ksqlDB, names of columns of a join.
pub(super) fn expand_wildcards(select: &mut Select, catalog: &Catalog, prefixed: bool) {
    let mut sources = Vec::new();
    for table in &select.from {
        for factor in std::iter::once(&table.relation).chain(table.joins.iter().map(|j| &j.relation)) {
            match source(factor, catalog) {
                Some(source) => sources.push(source),
                None => return,
            }
        }
    }
    let prefixed = prefixed && sources.len() > 1;
    let items = std::mem::take(&mut select.projection);
    for item in items {
        match &item {
            SelectItem::Wildcard(options) if *options == WildcardAdditionalOptions::default() => {
                let all = sources.iter().flat_map(|(name, relation)| columns(name, relation, prefixed));
                select.projection.extend(all);
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options)
                if *options == WildcardAdditionalOptions::default() =>
            {
                let wanted = last_part(name).map(sql::fold).unwrap_or_default();
                match sources.iter().find(|(alias, _)| sql::fold(alias) == wanted) {
                    Some((alias, relation)) => select.projection.extend(columns(alias, relation, prefixed)),
                    None => select.projection.push(item),
                }
            }
            _ => select.projection.push(item),
        }
    }
}

fn columns<'a>(
    alias: &'a Ident,
    relation: &'a Relation,
    prefixed: bool,
) -> impl Iterator<Item = SelectItem> + 'a {
    relation.columns.iter().map(move |column| {
        let name = Ident::with_quote('"', &column.name);
        let expr = Expr::CompoundIdentifier(vec![alias.clone(), name]);
        if !prefixed {
            return SelectItem::UnnamedExpr(expr);
        }
        let name = format!("{}_{}", sql::fold(alias), column.name);
        SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) }
    })
}

/// Names of columns that several sources of a query have.
pub(super) fn shared_columns(select: &Select, catalog: &Catalog) -> HashSet<String> {
    let (mut seen, mut shared) = (HashSet::new(), HashSet::new());
    let factors = select.from.iter().flat_map(|table| {
        std::iter::once(&table.relation).chain(table.joins.iter().map(|join| &join.relation))
    });
    for (_, relation) in factors.filter_map(|factor| source(factor, catalog)) {
        let repeated = relation.columns.iter().map(|c| &c.name).filter(|name| !seen.insert((*name).clone()));
        shared.extend(repeated.cloned());
    }
    shared
}

/// The pseudo-columns of the first relation of FROM; that of time where it is none of the catalog.
pub(super) fn of_first(select: &Select, catalog: &Catalog) -> Vec<&'static str> {
    let first = select.from.first().and_then(|table| source(&table.relation, catalog));
    let of_stream = first.is_some_and(|(_, relation)| relation.is_stream());
    let columns = if of_stream { &PSEUDO_COLUMNS[..] } else { &PSEUDO_COLUMNS[..1] };
    columns.iter().map(|(name, _)| *name).collect()
}

/// The relation a table factor names, with the name it goes by.
pub(super) fn source<'a>(factor: &TableFactor, catalog: &'a Catalog) -> Option<(Ident, &'a Relation)> {
    let TableFactor::Table { name, alias, args: None, .. } = factor else { return None };
    let ident = last_part(name)?;
    let relation = catalog.get(&sql::fold(ident))?;
    let alias = alias.as_ref().map_or_else(|| ident.clone(), |a| a.name.clone());
    Some((alias, relation))
}

fn last_part(name: &ObjectName) -> Option<&Ident> {
    match name.0.last()? {
        ObjectNamePart::Identifier(ident) => Some(ident),
        ObjectNamePart::Function(_) => None,
    }
}
