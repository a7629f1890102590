//! LATERAL, and subqueries that depend on the row they stand beside in ways DataFusion does not
//! resolve: rewritten to joins, for batch answers and continuous queries alike.
//!
//! The values the subquery depends on are carried through it as columns: it is computed for all of
//! them at once, and joined back. Invariant: what is left has no reference to an outer row, or is as
//! it was. Source: Neumann and Kemper, "Unnesting Arbitrary Queries" (BTW 2015).

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, NullEquality, Result, TableReference};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::{Exists, InSubquery, Sort};
use datafusion::logical_expr::logical_plan as logical;
use datafusion::logical_expr::logical_plan::{FetchType, SkipType};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Operator, Subquery, binary_expr, cast, col, lit,
};

use super::arguments::Apart;
use super::single_row::Check;

/// Resolves what depends on outer rows, innermost first.
pub(super) fn resolve(plan: LogicalPlan) -> Result<LogicalPlan> {
    resolve_from(plan, &mut 0)
}

/// The same behind as many as have been `found`.
fn resolve_from(plan: LogicalPlan, found: &mut usize) -> Result<LogicalPlan> {
    let resolved = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) => match lateral(&join, found)? {
            Some(resolved) => Ok(Transformed::yes(resolved)),
            None => Ok(Transformed::no(LogicalPlan::Join(join))),
        },
        LogicalPlan::Projection(projection) => scalars(LogicalPlan::Projection(projection), found),
        LogicalPlan::Filter(filter) => scalars(LogicalPlan::Filter(filter), found),
        node => match Apart::of(&node, found)? {
            Some(apart) => {
                let below = scalars(apart.below.clone(), found)?.data;
                Ok(Transformed::yes(apart.above(below)?))
            }
            None => Ok(Transformed::no(node)),
        },
    })?;
    Ok(resolved.data)
}

/// Columns of outer rows on their way through a subquery.
struct Carried {
    /// Each outer column and the name that it has inside.
    columns: Vec<(Column, String)>,
    /// The rows that bring them.
    rows: LogicalPlan,
}

impl Carried {
    /// `all` of the left side's columns, or the different values of those that `refs` names.
    fn of(left: &LogicalPlan, refs: &[Column], all: bool, number: usize) -> Result<Self> {
        let outer = if all { left.schema().columns() } else { refs.to_vec() };
        let name = |i| format!("\u{1}outer{number}_{i}");
        let columns: Vec<(Column, String)> =
            outer.into_iter().enumerate().map(|(i, column)| (column, name(i))).collect();
        let renamed = columns.iter().map(|(column, name)| Expr::Column(column.clone()).alias(name));
        let rows = LogicalPlanBuilder::from(left.clone()).project(renamed.collect::<Vec<_>>())?;
        let rows = if all { rows } else { rows.distinct()? };
        Ok(Self { columns, rows: rows.build()? })
    }

    fn inside(&self) -> impl Iterator<Item = Expr> {
        self.columns.iter().map(|(_, name)| Expr::Column(Column::from_name(name)))
    }

    /// An expression with its outer references inside.
    fn replace(&self, expr: &Expr) -> Result<Expr> {
        let replaced = expr.clone().transform(|e| {
            Ok(match e {
                Expr::OuterReferenceColumn(field, outer) => match self.name_of(&outer) {
                    Some(name) => Transformed::yes(Expr::Column(Column::from_name(name))),
                    None => Transformed::no(Expr::OuterReferenceColumn(field, outer)),
                },
                Expr::ScalarSubquery(subquery) => {
                    Transformed::yes(Expr::ScalarSubquery(self.replace_inside(subquery)?))
                }
                Expr::InSubquery(e) => {
                    let subquery = self.replace_inside(e.subquery)?;
                    Transformed::yes(Expr::InSubquery(InSubquery { subquery, ..e }))
                }
                Expr::Exists(e) => {
                    let subquery = self.replace_inside(e.subquery)?;
                    Transformed::yes(Expr::Exists(Exists { subquery, ..e }))
                }
                e => Transformed::no(e),
            })
        })?;
        Ok(replaced.data)
    }

    /// What a subquery inside refers to is what is carried beside it.
    fn replace_inside(&self, subquery: Subquery) -> Result<Subquery> {
        let beside = |e: Expr| {
            Ok(match e {
                Expr::OuterReferenceColumn(field, outer) => match self.name_of(&outer) {
                    Some(name) => {
                        Transformed::yes(Expr::OuterReferenceColumn(field, Column::from_name(name)))
                    }
                    None => Transformed::no(Expr::OuterReferenceColumn(field, outer)),
                },
                e => Transformed::no(e),
            })
        };
        let plan = subquery.subquery.as_ref().clone();
        let plan = plan
            .transform_up_with_subqueries(|node| node.map_expressions(|expr| expr.transform(beside)))?
            .data;
        let refs = subquery.outer_ref_columns.into_iter();
        let outer_ref_columns = refs.map(|e| Ok(e.transform(beside)?.data)).collect::<Result<Vec<_>>>()?;
        Ok(Subquery { subquery: Arc::new(plan), outer_ref_columns, spans: subquery.spans })
    }

    fn name_of(&self, outer: &Column) -> Option<&str> {
        self.columns.iter().find(|(column, _)| column == outer).map(|(_, name)| name.as_str())
    }
}

/// A join with a subquery that depends on its left side.
fn lateral(join: &logical::Join, found: &mut usize) -> Result<Option<LogicalPlan>> {
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) || !is_subquery(&join.right) {
        return Ok(None);
    }
    let refs = outer_references(&join.right, &join.left);
    if refs.is_empty() {
        return Ok(None);
    }
    *found += 1;
    let conditions = join.on.iter().map(|(l, r)| l.clone().eq(r.clone())).chain(join.filter.clone());
    let condition = conditions.reduce(Expr::and);
    let linear = join.join_type == JoinType::Inner && is_linear(&join.right);
    let carried = Carried::of(&join.left, &refs, linear, *found)?;
    let Some(right) = push(&join.right, &carried)? else { return Ok(None) };
    let joined = if linear {
        LogicalPlanBuilder::from(right)
    } else {
        join_back(&join.left, right, join.join_type, &carried)?
    };
    // The columns of the join as it was.
    let outer = |column: &Column| carried.columns.iter().find(|(c, _)| linear && c == column);
    let columns = join.schema.columns().into_iter().map(|column| match outer(&column) {
        Some((_, name)) => {
            Expr::Column(Column::from_name(name)).alias_qualified(column.relation, column.name)
        }
        None => Expr::Column(column),
    });
    let columns: Vec<Expr> = columns.collect();
    if join.join_type == JoinType::Left && condition.as_ref().is_some_and(|c| *c != lit(true)) {
        // Which rows of the left side are padded depends on it.
        return Ok(None);
    }
    let joined = joined.project(columns)?;
    Ok(Some(match condition {
        Some(condition) => joined.filter(condition)?.build()?,
        None => joined.build()?,
    }))
}

/// Every row of the left side with the rows that were computed for its values.
fn join_back(
    left: &LogicalPlan,
    right: LogicalPlan,
    join_type: JoinType,
    carried: &Carried,
) -> Result<LogicalPlanBuilder> {
    let keys: (Vec<Column>, Vec<Column>) =
        carried.columns.iter().map(|(outer, name)| (outer.clone(), Column::from_name(name))).unzip();
    let builder = LogicalPlanBuilder::from(left.clone());
    builder.join_detailed(right, join_type, keys, None, NullEquality::NullEqualsNull)
}

/// Scalar subqueries that compare with the outer row otherwise than by equality.
fn scalars(node: LogicalPlan, found: &mut usize) -> Result<Transformed<LogicalPlan>> {
    let [input] = node.inputs()[..] else { return Ok(Transformed::no(node)) };
    let (mut below, mut changed) = (input.clone(), false);
    let mut exprs = Vec::new();
    for expr in node.expressions() {
        let name = expr.schema_name().to_string();
        let replaced = expr.transform(|e| {
            let Expr::ScalarSubquery(subquery) = &e else { return Ok(Transformed::no(e)) };
            let Some((with, column)) = scalar(&below, subquery, found)? else {
                return Ok(Transformed::no(e));
            };
            below = with;
            Ok(Transformed::yes(Expr::Column(column)))
        })?;
        changed |= replaced.transformed;
        let keep = replaced.transformed && matches!(node, LogicalPlan::Projection(_));
        exprs.push(if keep { replaced.data.alias(name) } else { replaced.data });
    }
    if !changed {
        return Ok(Transformed::no(node));
    }
    let schema = Arc::clone(node.schema());
    let replaced = node.with_new_exprs(exprs, vec![below])?;
    // A filter has the columns of its input, and now some more.
    let columns = schema.columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    Ok(Transformed::yes(LogicalPlanBuilder::from(replaced).project(columns)?.build()?))
}

/// `input` with the value of a subquery as one column more.
fn scalar(
    input: &LogicalPlan,
    subquery: &Subquery,
    found: &mut usize,
) -> Result<Option<(LogicalPlan, Column)>> {
    let plan = subquery.subquery.as_ref();
    let refs = outer_references(plan, input);
    let check = Check::of(plan);
    let nested = passes_on(plan, &refs);
    let simple = is_aggregated(plan) && check.is_none() && !nested && only_equalities(plan)?;
    if (refs.is_empty() && check.is_none()) || simple {
        return Ok(None);
    }
    *found += 1;
    let value = Column::from_name(format!("\u{1}scalar{found}"));
    let carried = match refs.is_empty() {
        true => Carried { columns: Vec::new(), rows: input.clone() },
        false => Carried::of(input, &refs, false, *found)?,
    };
    let below = check.as_ref().map_or(plan, |check| check.below);
    let computed = if refs.is_empty() { Some(below.clone()) } else { push(below, &carried)? };
    let Some(mut computed) = computed else { return Ok(None) };
    if nested {
        computed = resolve_from(computed, found)?;
    }
    // What a check reads, or the value alone.
    let read = computed.schema().columns().into_iter().take(if check.is_some() { 2 } else { 1 });
    let names: Vec<Column> =
        (0..read.len()).map(|at| Column::from_name(format!("{}_{at}", value.name))).collect();
    let columns = read.zip(&names).map(|(column, name)| Expr::Column(column).alias(&name.name));
    let columns = columns.chain(carried.inside()).collect::<Vec<_>>();
    let computed = LogicalPlanBuilder::from(computed).project(columns)?.build()?;
    let joined = match refs.is_empty() {
        true => LogicalPlanBuilder::from(input.clone()).cross_join(computed)?,
        false => join_back(input, computed, JoinType::Left, &carried)?,
    };
    // A row whose subquery has too many is no row of the result: it is checked behind the join.
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(match check {
        Some(check) => check.over(&names, &value.name)?,
        None => Expr::Column(names[0].clone()).alias(&value.name),
    });
    Ok(Some((joined.project(columns)?.build()?, value)))
}

/// A plan with the carried columns behind its own, computed for all of their values; None where that
/// is not known.
fn push(plan: &LogicalPlan, carried: &Carried) -> Result<Option<LogicalPlan>> {
    if !has_outer_references(plan) {
        let rows = carried.rows.clone();
        return Ok(Some(match plan {
            LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => rows,
            plan => LogicalPlanBuilder::from(plan.clone()).cross_join(rows)?.build()?,
        }));
    }
    // ORDER BY of what is not selected lies below the projection: the rows are chosen there.
    if let LogicalPlan::Limit(limit) = plan
        && let LogicalPlan::Projection(above) = limit.input.as_ref()
    {
        let chosen = LogicalPlan::Limit(logical::Limit { input: Arc::clone(&above.input), ..limit.clone() });
        let schema = Arc::clone(&above.schema);
        let above = logical::Projection::try_new_with_schema(above.expr.clone(), Arc::new(chosen), schema)?;
        return push(&LogicalPlan::Projection(above), carried);
    }
    if let LogicalPlan::Join(join) = plan {
        return joined(join, carried);
    }
    if let LogicalPlan::Values(values) = plan {
        return written_rows(values, carried).map(Some);
    }
    let [input] = plan.inputs()[..] else { return Ok(None) };
    let Some(input) = push(input, carried)? else { return Ok(None) };
    let builder = LogicalPlanBuilder::from(input.clone());
    let own = |expr: &Expr, at: usize| -> Result<Expr> {
        let (qualifier, field) = plan.schema().qualified_field(at);
        Ok(carried.replace(expr)?.alias_qualified(qualifier.cloned(), field.name()))
    };
    Ok(Some(match plan {
        LogicalPlan::Projection(projection) => {
            let exprs = projection
                .expr
                .iter()
                .enumerate()
                .map(|(at, expr)| own(expr, at))
                .collect::<Result<Vec<_>>>()?;
            builder.project(exprs.into_iter().chain(carried.inside()).collect::<Vec<_>>())?.build()?
        }
        LogicalPlan::Filter(filter) => builder.filter(carried.replace(&filter.predicate)?)?.build()?,
        LogicalPlan::Subquery(_) | LogicalPlan::Sort(logical::Sort { fetch: None, .. }) => input,
        LogicalPlan::SubqueryAlias(alias) => aliased(builder, &alias.alias, plan, carried)?,
        LogicalPlan::Distinct(logical::Distinct::All(_)) => builder.distinct()?.build()?,
        LogicalPlan::Limit(limit) => match first_rows(limit, builder, plan, carried)? {
            Some(plan) => plan,
            None => return Ok(None),
        },
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate, builder, carried)?,
        LogicalPlan::Unnest(unnest) => {
            let unnested = logical::Unnest::try_new(
                Arc::new(input),
                unnest.exec_columns.clone(),
                unnest.options.clone(),
            )?;
            let columns = plan.schema().columns().into_iter().map(Expr::Column).chain(carried.inside());
            let unnested = LogicalPlanBuilder::from(LogicalPlan::Unnest(unnested));
            unnested.project(columns.collect::<Vec<_>>())?.build()?
        }
        _ => return Ok(None),
    }))
}

/// VALUES for each of the values: row by row.
fn written_rows(values: &logical::Values, carried: &Carried) -> Result<LogicalPlan> {
    let names = values.schema.columns();
    let rows = values.values.iter().map(|row| {
        let own = row.iter().zip(&names).zip(values.schema.fields());
        let own = own.map(|((expr, column), field)| {
            let value = cast(carried.replace(expr)?, field.data_type().clone());
            Ok(value.alias_qualified(column.relation.clone(), &column.name))
        });
        let columns = own.chain(carried.inside().map(Ok)).collect::<Result<Vec<_>>>()?;
        LogicalPlanBuilder::from(carried.rows.clone()).project(columns)?.build()
    });
    let mut rows = rows.collect::<Result<Vec<_>>>()?.into_iter();
    let first = LogicalPlanBuilder::from(rows.next().unwrap_or_else(|| carried.rows.clone()));
    rows.try_fold(first, LogicalPlanBuilder::union)?.build()
}

/// A join for each of the values: its left side carries them, and its right side where it depends on them too.
fn joined(join: &logical::Join, carried: &Carried) -> Result<Option<LogicalPlan>> {
    if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
        return Ok(None);
    }
    let equals = match join.null_equality {
        NullEquality::NullEqualsNothing => Operator::Eq,
        NullEquality::NullEqualsNull => Operator::IsNotDistinctFrom,
    };
    let Some(left) = push(&join.left, carried)? else { return Ok(None) };
    let mut right = join.right.as_ref().clone();
    let on = join.on.iter().map(|(l, r)| binary_expr(l.clone(), equals, r.clone()));
    let on = on.chain(join.filter.clone());
    let mut conditions = on.map(|condition| carried.replace(&condition)).collect::<Result<Vec<_>>>()?;
    if has_outer_references(&join.right) {
        let Some(pushed) = push(&join.right, carried)? else { return Ok(None) };
        let inner = |name: &str| format!("{name}\u{1}");
        let own = join.right.schema().columns().into_iter().map(Expr::Column);
        let names = || carried.columns.iter().map(|(_, name)| name.as_str());
        let renamed = names().map(|name| Expr::Column(Column::from_name(name)).alias(inner(name)));
        right = LogicalPlanBuilder::from(pushed).project(own.chain(renamed).collect::<Vec<_>>())?.build()?;
        let same = |name: &str| {
            let (left, right) = (Column::from_name(name), Column::from_name(inner(name)));
            binary_expr(Expr::Column(left), Operator::IsNotDistinctFrom, Expr::Column(right))
        };
        conditions.extend(names().map(same));
    }
    let builder = LogicalPlanBuilder::from(left);
    let both = match conditions.is_empty() {
        true => builder.cross_join(right)?,
        false => builder.join_on(right, join.join_type, conditions)?,
    };
    let columns = join.schema.columns().into_iter().map(Expr::Column).chain(carried.inside());
    Ok(Some(both.project(columns.collect::<Vec<_>>())?.build()?))
}

/// Own columns under the alias; the carried ones keep their names.
fn aliased(
    builder: LogicalPlanBuilder,
    alias: &TableReference,
    plan: &LogicalPlan,
    carried: &Carried,
) -> Result<LogicalPlan> {
    let own = plan.schema().columns().into_iter().map(Expr::Column);
    let kept = carried
        .columns
        .iter()
        .map(|(_, name)| Expr::Column(Column::new(Some(alias.clone()), name)).alias(name));
    builder.alias(alias.clone())?.project(own.chain(kept).collect::<Vec<_>>())?.build()
}

/// ORDER BY … LIMIT for each of the values.
fn first_rows(
    limit: &logical::Limit,
    builder: LogicalPlanBuilder,
    plan: &LogicalPlan,
    carried: &Carried,
) -> Result<Option<LogicalPlan>> {
    let (SkipType::Literal(skip), FetchType::Literal(fetch)) =
        (limit.get_skip_type()?, limit.get_fetch_type()?)
    else {
        return Ok(None);
    };
    let order = match limit.input.as_ref() {
        LogicalPlan::Sort(sort) => sort.expr.clone(),
        _ => Vec::new(),
    };
    let order = order
        .into_iter()
        .map(|s| Ok(Sort { expr: carried.replace(&s.expr)?, ..s }))
        .collect::<Result<Vec<_>>>()?;
    let number = row_number().partition_by(carried.inside().collect()).order_by(order).build()?;
    let name = "\u{1}number";
    let numbered = builder.window(vec![number.alias(name)])?;
    let (skip, number) = (u64::try_from(skip).unwrap_or(u64::MAX), col(Column::from_name(name)));
    let kept = match fetch.and_then(|n| u64::try_from(n).ok()) {
        Some(fetch) => numbered.filter(number.clone().lt_eq(lit(skip.saturating_add(fetch))))?,
        None => numbered,
    };
    let kept = if skip > 0 { kept.filter(number.gt(lit(skip)))? } else { kept };
    let columns = plan.schema().columns().into_iter().map(Expr::Column).chain(carried.inside());
    Ok(Some(kept.project(columns.collect::<Vec<_>>())?.build()?))
}

/// Groups for each of the values; without GROUP BY there is one for a value without rows too.
fn grouped(
    aggregate: &logical::Aggregate,
    builder: LogicalPlanBuilder,
    carried: &Carried,
) -> Result<LogicalPlan> {
    let replace = |exprs: &[Expr]| exprs.iter().map(|e| carried.replace(e)).collect::<Result<Vec<_>>>();
    let group: Vec<Expr> = replace(&aggregate.group_expr)?.into_iter().chain(carried.inside()).collect();
    let calls = replace(&aggregate.aggr_expr)?;
    let computed = builder.aggregate(group, calls.clone())?;
    let schema = aggregate.schema.columns();
    let (keys, values) = schema.split_at(aggregate.group_expr.len());
    // A call that had an outer reference has another name now.
    let places = computed.schema().columns();
    let call = |n: usize| Expr::Column(places[keys.len() + carried.columns.len() + n].clone());
    let named = |n: usize| call(n).alias_qualified(values[n].relation.clone(), &values[n].name);
    if !aggregate.group_expr.is_empty() {
        let own = keys.iter().cloned().map(Expr::Column).chain((0..values.len()).map(named));
        return computed.project(own.chain(carried.inside()).collect::<Vec<_>>())?.build();
    }
    let inner = |name: &str| format!("{name}\u{1}");
    let renamed =
        carried.columns.iter().map(|(_, name)| Expr::Column(Column::from_name(name)).alias(inner(name)));
    let computed =
        computed.project((0..values.len()).map(named).chain(renamed).collect::<Vec<_>>())?.build()?;
    let keys: (Vec<Column>, Vec<Column>) = carried
        .columns
        .iter()
        .map(|(_, name)| (Column::from_name(name), Column::from_name(inner(name))))
        .unzip();
    let all = LogicalPlanBuilder::from(carried.rows.clone());
    let all = all.join_detailed(computed, JoinType::Left, keys, None, NullEquality::NullEqualsNull)?;
    let own = values.iter().zip(&calls).map(|(value, call)| {
        let column = Expr::Column(value.clone());
        let counts = matches!(call.clone().unalias(), Expr::AggregateFunction(f) if f.func.name() == "count");
        if counts {
            coalesce(vec![column, lit(0i64)]).alias_qualified(value.relation.clone(), &value.name)
        } else {
            column
        }
    });
    all.project(own.chain(carried.inside()).collect::<Vec<_>>())?.build()
}

fn is_subquery(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Subquery(_) => true,
        LogicalPlan::SubqueryAlias(alias) => is_subquery(&alias.input),
        _ => false,
    }
}

/// Whether a plan makes rows of one row at a time, whatever other rows there are.
fn is_linear(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => plan.inputs().into_iter().all(is_linear),
        _ => false,
    }
}

/// Whether a subquery inside a plan refers to one of these columns.
fn passes_on(plan: &LogicalPlan, refs: &[Column]) -> bool {
    let mut passes = false;
    // Neither closure fails.
    let _ = plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                let (Expr::ScalarSubquery(subquery)
                | Expr::InSubquery(InSubquery { subquery, .. })
                | Expr::Exists(Exists { subquery, .. })) = e
                else {
                    return Ok(TreeNodeRecursion::Continue);
                };
                each_outer_reference(&subquery.subquery, &mut |column| passes |= refs.contains(column));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    passes
}

/// Whether a plan is one group by its form: what DataFusion resolves.
fn is_aggregated(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(is_aggregated)
        }
        _ => false,
    }
}

/// Whether outer references stand in filters alone, as what a column equals: DataFusion resolves those.
fn only_equalities(plan: &LogicalPlan) -> Result<bool> {
    let mut only = true;
    plan.apply(|node| {
        let exprs = node.expressions();
        let conditions = exprs.iter().flat_map(|e| {
            if matches!(node, LogicalPlan::Filter(_)) { split_conjunction(e) } else { vec![e] }
        });
        for condition in conditions.filter(|c| c.contains_outer()) {
            let equal = matches!(condition, Expr::BinaryExpr(b) if b.op == Operator::Eq
                && (is_column_of(&b.left, &b.right) || is_column_of(&b.right, &b.left)));
            only &= equal && matches!(node, LogicalPlan::Filter(_));
        }
        only &= !matches!(node, LogicalPlan::Limit(_));
        // What depends on the row below a join is not pulled up through it.
        only &= !(matches!(node, LogicalPlan::Join(_)) && has_outer_references(node));
        Ok(if only { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(only)
}

/// Whether one side is a column of the subquery and the other has none.
fn is_column_of(side: &Expr, other: &Expr) -> bool {
    let column = match side {
        Expr::Cast(cast) => cast.expr.as_ref(),
        side => side,
    };
    matches!(column, Expr::Column(_)) && !other.any_column_refs()
}

/// Columns of `outer` that a plan refers to, each once.
fn outer_references(plan: &LogicalPlan, outer: &LogicalPlan) -> Vec<Column> {
    let mut found: Vec<Column> = Vec::new();
    each_outer_reference(plan, &mut |column| {
        if outer.schema().has_column(column) && !found.contains(column) {
            found.push(column.clone());
        }
    });
    found
}

fn has_outer_references(plan: &LogicalPlan) -> bool {
    let mut any = false;
    each_outer_reference(plan, &mut |_| any = true);
    any
}

fn each_outer_reference(plan: &LogicalPlan, f: &mut dyn FnMut(&Column)) {
    // Neither closure fails.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::OuterReferenceColumn(_, column) = e {
                    f(column);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
}
