//! One pass over the tree before planning: clauses off the select lists, wildcards, names.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::logical_expr::AggregateUDF;
use sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, GroupByExpr, Ident, Join, JoinConstraint, JoinOperator, LimitClause,
    ObjectName, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, TableAlias,
    TableAliasColumnDef, TableFactor, Value, Visit, Visitor, VisitorMut,
};

use super::{
    BindOptions, Fallback, asof, ksql, naming, partition, pseudo, spelling, struct_fields, subquery,
    table_functions, ties, using, whole_row,
    windows::{self, Bounds},
};
use crate::catalog::{Catalog, Relation, VALUELESS};
use crate::error::Error;
use crate::functions::WITHIN;

pub(super) struct Rewrite<'a> {
    catalog: &'a Catalog,
    fallback: Option<&'a dyn Fallback>,
    aggregates: &'a HashMap<String, Arc<AggregateUDF>>,
    options: BindOptions,
    /// Names of WITH, which hide relations of the same name.
    with: HashSet<String>,
    /// Whether sources show their pseudo-columns.
    pub(super) pseudo: bool,
    /// How many queries it is inside of.
    depth: usize,
    /// The record time comes last in the result.
    carries: bool,
}

impl<'a> Rewrite<'a> {
    pub(super) fn new(
        catalog: &'a Catalog,
        fallback: Option<&'a dyn Fallback>,
        aggregates: &'a HashMap<String, Arc<AggregateUDF>>,
        pseudo: bool,
        options: BindOptions,
    ) -> Self {
        let with = HashSet::new();
        Self { catalog, fallback, aggregates, options, with, pseudo, depth: 0, carries: false }
    }

    /// What is known of something in FROM before it is planned; None where it has no name.
    fn factor(&self, factor: &TableFactor) -> Option<using::Factor> {
        let (alias, columns) = match factor {
            TableFactor::Table { name, alias, args, .. } => {
                let known = args.is_none().then(|| self.columns(name)).flatten();
                let own = || name.0.last().and_then(|part| part.as_ident()).cloned();
                (alias.as_ref().map_or_else(own, |alias| Some(alias.name.clone()))?, known)
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => (alias.as_ref()?.name.clone(), None),
            _ => return None,
        };
        let renamed =
            matches!(factor, TableFactor::Table { alias: Some(alias), .. } if !alias.columns.is_empty());
        Some(using::Factor::new(alias, columns.filter(|_| !renamed)))
    }

    /// Names of the columns of a relation.
    fn columns(&self, name: &ObjectName) -> Option<Vec<String>> {
        let parts: Vec<String> =
            name.0.iter().map(|part| part.as_ident().map(sql::fold)).collect::<Option<_>>()?;
        let reference = match parts.as_slice() {
            [name] if self.with.contains(name) => return None,
            [name] => TableReference::bare(name.as_str()),
            [schema, name] => TableReference::partial(schema.as_str(), name.as_str()),
            _ => return None,
        };
        let user = matches!(reference.schema(), None | Some("public"));
        match self.catalog.get(reference.table()).filter(|_| user) {
            Some(relation) => Some(relation.columns.iter().map(|column| column.name.clone()).collect()),
            None => {
                let source = self.fallback?.source(&reference)?;
                Some(source.schema().fields().iter().map(|field| field.name().clone()).collect())
            }
        }
    }

    fn select(&mut self, select: &mut Select) -> Result<(), Error> {
        let outermost = self.depth == 1;
        let clauses = sql::take_clauses(select);
        if clauses.emit.is_some() {
            return Err(Error::Definition("EMIT belongs to the end of a statement".into()));
        }
        let within = self.within(select)?;
        whole_row::apply(select, &|factor| self.factor(factor));
        as_of(select)?;
        subquery::out_of_joins(select);
        struct_fields::expand(select, self.catalog)?;
        self.pseudo |= clauses.window.is_some() || within;
        let numbered = outermost && self.options.numbered_columns;
        if self.pseudo || numbered {
            pseudo::expand_wildcards(select, self.catalog, numbered);
        }
        if let Some(by) = &clauses.partition_by {
            if self.options.window_bounds {
                return Err(Error::Definition("PARTITION BY makes a stream: use CREATE STREAM".into()));
            }
            partition::apply(select, by, self.catalog)?;
        }
        if outermost
            && self.carries
            && let Some(time) = self.row_time(select, within)
        {
            let alias = Ident::with_quote('"', super::ROW_TIME);
            select.projection.push(SelectItem::ExprWithAlias { expr: time, alias });
            if let Some(mark) = self.valueless(select).filter(|_| self.options.passes_valueless) {
                select.projection.push(SelectItem::UnnamedExpr(mark));
            }
        }
        if let Some(window) = clauses.window {
            windows::apply(
                select,
                &window,
                &pseudo::of_first(select, self.catalog),
                match self.options.window_bounds && outermost {
                    true if numbered => Bounds::Both,
                    true => Bounds::UnlessSelected,
                    false => Bounds::AsSelected,
                },
                self.options.emit_final,
            )?;
        }
        select.projection.iter_mut().for_each(table_functions::select_item);
        let shared = numbered.then(|| pseudo::shared_columns(select, self.catalog));
        naming::name_items(select, shared.as_ref());
        subquery::select_list(select, &|function| self.is_aggregate(function));
        Ok(())
    }

    /// Joins WITHIN become joins with a condition more; true when there is one.
    fn within(&self, select: &mut Select) -> Result<bool, Error> {
        let mut found = false;
        for table in &mut select.from {
            let stream = |factor: &TableFactor| {
                let (name, relation) = pseudo::source(factor, self.catalog)?;
                relation.is_stream().then(|| format!("{name}.rowtime"))
            };
            // What streams have been joined is as old as the youngest of their rows; NULL is no time.
            let mut times: Vec<String> = stream(&table.relation).into_iter().collect();
            for join in &mut table.joins {
                let right = stream(&join.relation);
                if let Some(condition) = condition(&mut join.join_operator)
                    && let Some(within) = sql::take_within(condition)?
                {
                    let Some(right) = right.as_ref().filter(|_| !times.is_empty()) else {
                        return Err(Error::Definition("WITHIN joins two streams".into()));
                    };
                    let left = match times.as_slice() {
                        [one] => one.clone(),
                        several => format!("greatest({})", several.join(", ")),
                    };
                    let grace = within.grace_ms.map_or_else(|| "NULL".to_owned(), |grace| grace.to_string());
                    let more = sql::parse_condition(&format!(
                        "{WITHIN}({left}, {right}, {}, {}, CAST({grace} AS BIGINT))",
                        within.before_ms, within.after_ms
                    ))?;
                    let own = Expr::Nested(Box::new(condition.clone()));
                    *condition = spelling::binary(own, BinaryOperator::And, more);
                    found = true;
                }
                times.extend(right);
            }
        }
        Ok(found)
    }

    fn is_aggregate(&self, function: &Function) -> bool {
        let known = self.aggregates.contains_key(&function.name.to_string().to_lowercase());
        function.over.is_none() && (known || ksql::is_aggregate(function))
    }

    fn calls_aggregate(&self, item: &SelectItem) -> bool {
        /// How many subqueries it is inside of: their aggregates are their own.
        struct Find<'a>(&'a Rewrite<'a>, usize);
        impl Visitor for Find<'_> {
            type Break = ();
            fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
                self.1 += 1;
                ControlFlow::Continue(())
            }
            fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
                self.1 -= 1;
                ControlFlow::Continue(())
            }
            fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                match expr {
                    Expr::Function(f) if self.1 == 0 && self.0.is_aggregate(f) => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            }
        }
        Visit::visit(item, &mut Find(self, 0)).is_break()
    }

    /// The record time of the rows of a SELECT: that of its first relation, if that is a stream; what
    /// comes from several tables, or from two streams, is as old as the youngest. None for rows that
    /// have no time of their own.
    fn row_time(&self, select: &Select, within: bool) -> Option<Expr> {
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let aggregated = grouped || select.projection.iter().any(|item| self.calls_aggregate(item));
        if select.distinct.is_some() || (aggregated && !self.options.table_time) {
            return None;
        }
        let first = select.from.first()?;
        let (alias, relation) = self.timed_source(&first.relation)?;
        let mut times = vec![Expr::CompoundIdentifier(vec![alias, Ident::new("rowtime")])];
        if within || !relation.is_stream() {
            let joined = first.joins.iter().filter_map(|j| self.timed_source(&j.relation));
            times.extend(joined.map(|(a, _)| Expr::CompoundIdentifier(vec![a, Ident::new("rowtime")])));
        }
        let time = if times.len() == 1 { times.remove(0) } else { spelling::call("greatest", times) };
        Some(if aggregated { spelling::call("max", vec![time]) } else { time })
    }

    /// The mark of rows without a value, where each row of a SELECT comes of one of a stream.
    fn valueless(&self, select: &Select) -> Option<Expr> {
        let [table] = select.from.as_slice() else { return None };
        let grouped = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        let chosen = select.selection.is_some() || select.having.is_some() || select.distinct.is_some();
        let expands = |item: &SelectItem| self.calls_aggregate(item) || subquery::item_gives_rows(item);
        if !table.joins.is_empty() || grouped || chosen || select.projection.iter().any(expands) {
            return None;
        }
        let (alias, relation) = pseudo::source(&table.relation, self.catalog)?;
        let mark = Ident::with_quote('"', VALUELESS);
        relation.marks_valueless().then(|| Expr::CompoundIdentifier(vec![alias, mark]))
    }

    /// A relation whose rows have a record time.
    fn timed_source(&self, factor: &TableFactor) -> Option<(Ident, &'_ Relation)> {
        let (alias, relation) = pseudo::source(factor, self.catalog)?;
        relation.full_schema().column_with_name("rowtime")?;
        Some((alias, relation))
    }

    /// Whether each SELECT of a query, which may be a union of several, has a record time.
    fn has_row_time(&self, body: &SetExpr) -> bool {
        match body {
            SetExpr::Select(select) => self.row_time(select, false).is_some(),
            SetExpr::SetOperation {
                op: SetOperator::Union,
                set_quantifier: SetQuantifier::All,
                left,
                right,
            } => self.has_row_time(left) && self.has_row_time(right),
            _ => false,
        }
    }
}

/// A number in quotes is a number, as an untyped literal of PostgreSQL is one.
fn numeric_limit(query: &mut Query) {
    let Some(LimitClause::LimitOffset { limit, offset, .. }) = &mut query.limit_clause else { return };
    for count in limit.iter_mut().chain(offset.iter_mut().map(|offset| &mut offset.value)) {
        if let Expr::Value(value) = count
            && let Value::SingleQuotedString(text) = &value.value
            && text.parse::<u64>().is_ok()
        {
            value.value = Value::Number(text.clone(), false);
        }
    }
}

/// TABLE name is SELECT * FROM name.
fn table_as_select(query: &mut Query) {
    let SetExpr::Table(table) = query.body.as_ref() else { return };
    let quoted = |name: &String| Ident::with_quote('"', name).to_string();
    let name: Vec<String> = table.schema_name.iter().chain(&table.table_name).map(quoted).collect();
    if let Ok(select) = sql::parse_query(&format!("SELECT * FROM {}", name.join("."))) {
        query.body = select.ast.body;
    }
}

/// FETCH FIRST is a LIMIT.
fn fetch(query: &mut Query) -> Result<(), Error> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.percent {
        return Err(Error::NotSupported {
            what: "FETCH … PERCENT".into(),
            continuous: false,
            hint: Some("percent_rank() OVER (ORDER BY …) says where a row stands".into()),
        });
    }
    if fetch.with_ties {
        return ties::apply(query, fetch);
    }
    let one = || Expr::value(Value::Number("1".into(), false));
    let limit = Some(fetch.quantity.unwrap_or_else(one));
    let offset = match query.limit_clause.take() {
        Some(LimitClause::LimitOffset { limit: None, offset, .. }) => offset,
        None => None,
        Some(_) => return Err(Error::Definition("LIMIT and FETCH exclude each other".into())),
    };
    query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
    Ok(())
}

/// Joins ASOF become LATERAL subqueries.
fn as_of(select: &mut Select) -> Result<(), Error> {
    for join in select.from.iter_mut().flat_map(|table| &mut table.joins) {
        let Some(on) = condition(&mut join.join_operator) else { continue };
        if sql::take_asof(on)? {
            let on = on.clone();
            asof::rewrite(join, &on)?;
        }
        move_into_lateral(join);
    }
    Ok(())
}

/// The condition of a LEFT JOIN with a LATERAL subquery chooses among the subquery's rows, so it goes
/// into it.
fn move_into_lateral(join: &mut Join) {
    if !matches!(join.join_operator, JoinOperator::Left(_) | JoinOperator::LeftOuter(_)) {
        return;
    }
    let TableFactor::Derived { lateral: true, alias: Some(alias), .. } = &join.relation else { return };
    let inner = alias.clone();
    let name = TableAlias { columns: Vec::new(), ..alias.clone() };
    let Some(on) = condition(&mut join.join_operator).filter(|on| on.to_string() != "true") else { return };
    let Ok(outer) = sql::parse_query(&format!("SELECT * FROM (SELECT 1) AS a WHERE {on}")) else { return };
    *on = Expr::value(Value::Boolean(true));
    let rows = std::mem::replace(
        &mut join.relation,
        TableFactor::Derived { lateral: true, subquery: outer.ast, alias: Some(name), sample: None },
    );
    let (TableFactor::Derived { subquery: rows, .. }, TableFactor::Derived { subquery: outer, .. }) =
        (rows, &mut join.relation)
    else {
        return;
    };
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(from) = select.from.first_mut()
    {
        from.relation =
            TableFactor::Derived { lateral: false, subquery: rows, alias: Some(inner), sample: None };
    }
}

/// The ON of a join.
fn condition(join: &mut JoinOperator) -> Option<&mut Expr> {
    match join {
        JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on))
        | JoinOperator::Left(JoinConstraint::On(on))
        | JoinOperator::LeftOuter(JoinConstraint::On(on))
        | JoinOperator::Right(JoinConstraint::On(on))
        | JoinOperator::RightOuter(JoinConstraint::On(on))
        | JoinOperator::FullOuter(JoinConstraint::On(on)) => Some(on),
        _ => None,
    }
}

impl VisitorMut for Rewrite<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if self.depth == 0 {
            let carries = self.options.row_time || self.options.table_time;
            self.carries = carries && self.has_row_time(&query.body);
            self.options.passes_valueless &= matches!(query.body.as_ref(), SetExpr::Select(_));
        }
        self.depth += 1;
        table_as_select(query);
        let names = query.with.iter().flat_map(|with| &with.cte_tables);
        self.with.extend(names.map(|table| sql::fold(&table.alias.name)));
        using::apply(query, &|factor| self.factor(factor));
        numeric_limit(query);
        match fetch(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        match self.select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        spelling::expression(expr);
        if let Expr::Collate { collation, .. } = expr
            && let Err(error) = sql::check_collation(collation)
        {
            return ControlFlow::Break(error.into());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if let TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } =
            factor
        {
            return ControlFlow::Break(Error::NotSupported {
                what: "TABLESAMPLE".into(),
                continuous: false,
                hint: Some("WHERE random() < 0.1 takes a part of the rows".into()),
            });
        }
        if let TableFactor::Table { alias: Some(alias), args: None, name, .. } = factor
            && !alias.columns.is_empty()
            && let Some(columns) = self.columns(name)
        {
            // Columns behind those that get another name keep theirs.
            let kept = columns.iter().skip(alias.columns.len()).map(|name| Ident::with_quote('"', name));
            let kept = kept.map(|name| TableAliasColumnDef { name, data_type: None });
            alias.columns.extend(kept.collect::<Vec<_>>());
        }
        table_functions::table_factor(factor);
        ControlFlow::Continue(())
    }
}
