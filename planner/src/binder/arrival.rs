//! Lists of a stream's values that ksqlDB keeps in the order in which they came: COLLECT_LIST and COLLECT_SET.
//!
//! Invariant: only rows of one stream have such an order. Of rows that change, and of joins, a list has the order
//! of the rows that are there. Source: ksqlDB, "Aggregate functions", COLLECT_LIST and COLLECT_SET.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sql::sqlparser::ast::{Expr, FunctionArgumentClause, FunctionArguments, Query, Select, VisitorMut};

use super::{ksql, own, pseudo};
use crate::catalog::Catalog;

/// Gives the lists of a query the order in which the rows came, where they have one.
pub(super) struct InOrderOfArrival<'a> {
    catalog: &'a Catalog,
    /// Names of WITH, which hide relations of the same name.
    with: HashSet<String>,
}

impl<'a> InOrderOfArrival<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self { catalog, with: HashSet::new() }
    }

    fn reads_one_stream(&self, select: &Select) -> bool {
        let [table] = select.from.as_slice() else { return false };
        let source = pseudo::source(&table.relation, self.catalog).filter(|_| table.joins.is_empty());
        source.is_some_and(|(_, relation)| relation.is_stream() && !self.with.contains(&relation.name))
    }
}

impl VisitorMut for InOrderOfArrival<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let names = query.with.iter().flat_map(|with| &with.cte_tables);
        self.with.extend(names.map(|table| sql::fold(&table.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.reads_one_stream(select) {
            own::each(&mut select.projection, order, |_| ());
            own::each(&mut select.having, order, |_| ());
        }
        ControlFlow::Continue(())
    }
}

fn order(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    if !ksql::collects(function) {
        return;
    }
    if let FunctionArguments::List(list) = &mut function.args
        && list.clauses.is_empty()
    {
        list.clauses.push(FunctionArgumentClause::OrderBy(ksql::arrival()));
    }
}
