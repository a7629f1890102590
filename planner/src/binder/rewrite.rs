//! One pass over the tree before planning: clauses off the select lists, wildcards, names.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::logical_expr::AggregateUDF;
use sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, Select, SelectItem, TableFactor, Visit, Visitor, VisitorMut,
};

use super::{BindOptions, naming, pseudo, spelling, windows};
use crate::catalog::Catalog;
use crate::error::Error;

pub(super) struct Rewrite<'a> {
    catalog: &'a Catalog,
    aggregates: &'a HashMap<String, Arc<AggregateUDF>>,
    options: BindOptions,
    /// Whether sources show their pseudo-columns.
    pub(super) pseudo: bool,
    /// The outermost SELECT has been seen.
    inside: bool,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(
        catalog: &'a Catalog,
        aggregates: &'a HashMap<String, Arc<AggregateUDF>>,
        pseudo: bool,
        options: BindOptions,
    ) -> Self {
        Self { catalog, aggregates, options, pseudo, inside: false }
    }

    fn select(&mut self, select: &mut Select) -> Result<(), Error> {
        let outermost = !std::mem::replace(&mut self.inside, true);
        let (emit, window) = sql::take_clauses(select);
        if emit.is_some() {
            return Err(Error::Definition("EMIT belongs to the end of a statement".into()));
        }
        self.pseudo |= window.is_some();
        if self.pseudo {
            pseudo::expand_wildcards(select, self.catalog);
        }
        if outermost && self.options.row_time {
            self.carry_row_time(select);
        }
        if let Some(window) = window {
            windows::apply(select, &window, outermost && self.options.window_bounds)?;
        }
        select.projection.iter_mut().for_each(spelling::select_item);
        naming::name_items(select);
        Ok(())
    }

    fn calls_aggregate(&self, item: &SelectItem) -> bool {
        struct Find<'a>(&'a HashMap<String, Arc<AggregateUDF>>);
        impl Visitor for Find<'_> {
            type Break = ();
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                match expr {
                    Expr::Function(f) if self.0.contains_key(&f.name.to_string().to_lowercase()) => {
                        ControlFlow::Break(())
                    }
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        Visit::visit(item, &mut Find(self.aggregates)).is_break()
    }

    /// Puts the record time of the first relation at the end of the select list.
    fn carry_row_time(&self, select: &mut Select) {
        // Rows that are grouped have no record time of their own.
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let aggregated = select.projection.iter().any(|item| self.calls_aggregate(item));
        if grouped || aggregated || select.distinct.is_some() {
            return;
        }
        let Some(first) = select.from.first() else { return };
        let Some((alias, relation)) = pseudo::source(&first.relation, self.catalog) else { return };
        if relation.full_schema().column_with_name("rowtime").is_none() {
            return;
        }
        let expr = Expr::CompoundIdentifier(vec![alias, Ident::new("rowtime")]);
        select
            .projection
            .push(SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', super::ROW_TIME) });
    }
}

impl VisitorMut for Rewrite<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match self.select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        spelling::expression(expr);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        spelling::table_factor(factor);
        ControlFlow::Continue(())
    }
}
