//! Windows in both spellings end in one node: ksqlDB's WINDOW clause and the table functions
//! `TUMBLE(relation, time, size)` and `HOP(relation, time, slide, size)`.

use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::logical_expr::{Expr as LogicalExpr, Extension, LogicalPlan};
use sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, ObjectName, Select, SelectItem, TableFactor,
    TableFunctionArgs, Value,
};
use sql::{Window, WindowKind};
use std::sync::Arc;

use super::table_functions;
use crate::error::Error;
use crate::session_assign::{SessionAssign, SessionSpec};
use crate::window_assign::{WindowAssign, WindowSpec, default_grace_ms};

/// The clause's own function: relation, size, advance, grace, all in ms.
const CLAUSE: &str = "__millpond_windowed";
/// The same for sessions: rows, gap and grace in ms, keys.
const SESSION_CLAUSE: &str = "__millpond_sessions";
/// Most windows one row may fall into.
const MAX_WINDOWS: i64 = 10_000;
const BOUNDS: [&str; 2] = ["windowstart", "windowend"];

/// Which bounds of a WINDOW clause are columns of the result besides those that are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounds {
    /// None.
    AsSelected,
    /// Both, unless one is selected.
    UnlessSelected,
    /// Each, unless it is there under its own name: the key of records has both.
    Both,
}

/// Rewrites a SELECT with a WINDOW clause to one over the windowed first relation, which has the
/// pseudo-columns `pseudo`.
pub(super) fn apply(
    select: &mut Select,
    window: &Window,
    pseudo: &[&str],
    shown: Bounds,
    emit_final: bool,
) -> Result<(), Error> {
    let grace = |size_ms: i64| {
        let default = || if emit_final { 0 } else { default_grace_ms(size_ms) };
        window.grace_ms.unwrap_or_else(default)
    };
    let lengths = match window.kind {
        WindowKind::Tumbling { size_ms } => [size_ms, size_ms, grace(size_ms)],
        WindowKind::Hopping { size_ms, advance_ms } => [size_ms, advance_ms, grace(size_ms)],
        WindowKind::Session { gap_ms } => {
            return apply_session(select, gap_ms, grace(gap_ms), pseudo, shown);
        }
    };
    let (name, alias, args) = windowed(select)?;
    let relation = last_ident(name);
    if alias.is_none() {
        *alias = Some(plain_alias(relation.clone()));
    }
    let mut arguments = vec![argument(Expr::Identifier(relation))];
    arguments.extend(lengths.map(number));
    *args = Some(TableFunctionArgs { args: arguments, settings: None });
    *name = ObjectName::from(vec![Ident::new(CLAUSE)]);
    group_by_bounds(select, shown);
    Ok(())
}

/// Sessions are of the rows that pass WHERE, so the condition goes below them; their keys are those
/// of GROUP BY.
fn apply_session(
    select: &mut Select,
    gap_ms: i64,
    grace_ms: i64,
    pseudo: &[&str],
    shown: Bounds,
) -> Result<(), Error> {
    if select.from.len() != 1 || select.from.iter().any(|t| !t.joins.is_empty()) {
        return Err(Error::NotSupported {
            what: "WINDOW SESSION over a join".into(),
            continuous: false,
            hint: Some("make the join a stream of its own".into()),
        });
    }
    let GroupByExpr::Expressions(keys, _) = &select.group_by else {
        return Err(Error::Definition("WINDOW needs GROUP BY".into()));
    };
    let keys: Vec<Expr> = keys.iter().cloned().map(unqualified).collect();
    let condition = select.selection.take();
    let (name, alias, args) = windowed(select)?;
    let relation = last_ident(name);
    let inner_alias = alias.as_ref().map(|a| format!(" AS {}", a.name)).unwrap_or_default();
    let condition = condition.map(|c| format!(" WHERE {c}")).unwrap_or_default();
    let pseudo: String = pseudo.iter().flat_map(|column| [", ", column]).collect();
    let rows = sql::parse_query(&format!("SELECT *{pseudo} FROM {name}{inner_alias}{condition}"))?;
    if alias.is_none() {
        *alias = Some(plain_alias(relation));
    }
    let mut arguments = vec![argument(Expr::Subquery(rows.ast)), number(gap_ms), number(grace_ms)];
    arguments.extend(keys.into_iter().map(argument));
    *args = Some(TableFunctionArgs { args: arguments, settings: None });
    *name = ObjectName::from(vec![Ident::new(SESSION_CLAUSE)]);
    group_by_bounds(select, shown);
    Ok(())
}

type Windowed<'a> =
    (&'a mut ObjectName, &'a mut Option<sql::sqlparser::ast::TableAlias>, &'a mut Option<TableFunctionArgs>);

/// The relation that a WINDOW clause is about.
fn windowed(select: &mut Select) -> Result<Windowed<'_>, Error> {
    match select.from.first_mut().map(|t| &mut t.relation) {
        Some(TableFactor::Table { args: Some(_), .. }) => {
            Err(Error::Definition("WINDOW and a window function exclude each other".into()))
        }
        Some(TableFactor::Table { name, alias, args, .. }) => Ok((name, alias, args)),
        _ => Err(Error::Definition("WINDOW needs a stream after FROM".into())),
    }
}

fn last_ident(name: &ObjectName) -> Ident {
    name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new(""))
}

/// The expression over the one relation there is, whatever it is called.
fn unqualified(mut expr: Expr) -> Expr {
    let _ = sql::sqlparser::ast::visit_expressions_mut(&mut expr, |e| {
        if let Expr::CompoundIdentifier(parts) = e
            && let Some(last) = parts.last()
        {
            *e = Expr::Identifier(last.clone());
        }
        std::ops::ControlFlow::<()>::Continue(())
    });
    expr
}

fn number(n: i64) -> FunctionArg {
    argument(Expr::value(Value::Number(n.to_string(), false)))
}

fn plain_alias(name: Ident) -> sql::sqlparser::ast::TableAlias {
    sql::sqlparser::ast::TableAlias { explicit: false, name, columns: Vec::new(), at: None }
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn group_by_bounds(select: &mut Select, shown: Bounds) {
    let items = &mut select.projection;
    let GroupByExpr::Expressions(keys, _) = &mut select.group_by else { return };
    let missing = match shown {
        Bounds::AsSelected => Vec::new(),
        Bounds::UnlessSelected if items.iter().any(is_bound) => Vec::new(),
        Bounds::UnlessSelected => BOUNDS.to_vec(),
        Bounds::Both => {
            BOUNDS.into_iter().filter(|bound| !items.iter().any(|item| is_named(item, bound))).collect()
        }
    };
    let after = items.iter().rposition(|item| is_key(item, keys)).map_or(0, |i| i + 1);
    let column = |name: &str| Expr::Identifier(Ident::new(name));
    items.splice(after..after, missing.into_iter().map(column).map(SelectItem::UnnamedExpr));
    keys.extend(BOUNDS.map(column));
}

/// Whether an item is a bound, whatever it is called.
fn is_bound(item: &SelectItem) -> bool {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident))
        | SelectItem::ExprWithAlias { expr: Expr::Identifier(ident), .. } => {
            BOUNDS.contains(&sql::fold(ident).as_str())
        }
        _ => false,
    }
}

fn is_named(item: &SelectItem, name: &str) -> bool {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) | SelectItem::ExprWithAlias { alias: ident, .. } => {
            sql::fold(ident) == name
        }
        _ => false,
    }
}

fn is_key(item: &SelectItem, keys: &[Expr]) -> bool {
    match item {
        SelectItem::UnnamedExpr(expr) => keys.contains(expr),
        SelectItem::ExprWithAlias { expr, alias } => {
            keys.contains(expr) || keys.contains(&Expr::Identifier(alias.clone()))
        }
        _ => false,
    }
}

/// Plans the window functions of FROM.
#[derive(Debug)]
pub(crate) struct WindowFunctions;

impl RelationPlanner for WindowFunctions {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, alias, args: Some(arguments), .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let function = name.to_string().to_ascii_lowercase();
        let known = ["tumble", "hop", "cumulate", "session", CLAUSE, SESSION_CLAUSE];
        if !known.contains(&function.as_str()) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let arguments = expressions(&function, &arguments.args)?;
        let (source, rest) = arguments.split_first().ok_or_else(|| wrong_arguments(&function))?;
        let input = context.plan(table_of(&function, source)?)?;
        let qualifier = input.schema().iter().next().and_then(|(q, _)| q.cloned());
        if matches!(function.as_str(), "session" | SESSION_CLAUSE) {
            let (spec, names) = sessions(&function, rest, &input, context)?;
            let node = SessionAssign::try_new(input, spec, qualifier, names)?;
            let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
        }
        let (time, spec, names) = window(&function, rest, &input, context)?;
        let node = WindowAssign::try_new(input, time, spec, qualifier, names)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

fn sessions(
    function: &str,
    rest: &[Expr],
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<(SessionSpec, [String; 2])> {
    let mut keys = |exprs: &[Expr]| {
        exprs.iter().map(|e| context.sql_to_expr(e.clone(), input.schema())).collect::<Result<Vec<_>>>()
    };
    let end_after_gap = function == "session";
    let (time, gap_ms, grace_ms, keys, names) = match (function, rest) {
        (SESSION_CLAUSE, [gap, grace, by @ ..]) => {
            let ms = |e: &Expr| e.to_string().parse::<i64>().map_err(|_| wrong_arguments(function));
            let (gap, grace) = (ms(gap)?, ms(grace)?);
            let keys = keys(by)?;
            let time = context.sql_to_expr(Expr::Identifier(Ident::new("rowtime")), input.schema())?;
            (time, gap, Some(grace), keys, BOUNDS.map(str::to_owned))
        }
        ("session", [time, gap, by @ ..]) => {
            let keys = keys(by)?;
            let time = context.sql_to_expr(time.clone(), input.schema())?;
            let names = ["window_start".into(), "window_end".into()];
            (time, length_ms(gap.clone(), context)?, None, keys, names)
        }
        _ => return Err(wrong_arguments(function)),
    };
    if gap_ms <= 0 {
        return Err(Error::invalid("window", "its lengths must be positive").into());
    }
    Ok((SessionSpec { time, keys, gap_ms, grace_ms, end_after_gap }, names))
}

type Planned = (LogicalExpr, WindowSpec, [String; 2]);

fn window(
    function: &str,
    rest: &[Expr],
    input: &LogicalPlan,
    context: &mut dyn RelationPlannerContext,
) -> Result<Planned> {
    if function == CLAUSE {
        let [size, advance, grace] = rest else { return Err(wrong_arguments(function)) };
        let time = context.sql_to_expr(Expr::Identifier(Ident::new("rowtime")), input.schema())?;
        let ms = |e: &Expr| e.to_string().parse::<i64>().map_err(|_| wrong_arguments(function));
        let spec = checked(WindowSpec {
            size_ms: ms(size)?,
            advance_ms: ms(advance)?,
            step_ms: None,
            grace_ms: Some(ms(grace)?),
        })?;
        return Ok((time, spec, BOUNDS.map(str::to_owned)));
    }
    let (time, lengths) = rest.split_first().ok_or_else(|| wrong_arguments(function))?;
    let time = context.sql_to_expr(time.clone(), input.schema())?;
    let lengths = lengths.iter().map(|e| length_ms(e.clone(), context)).collect::<Result<Vec<_>>>()?;
    let (size_ms, advance_ms, step_ms) = match (function, lengths.as_slice()) {
        ("tumble", [size]) => (*size, *size, None),
        ("hop", [slide, size]) => (*size, *slide, None),
        ("cumulate", [step, size]) => (*size, *size, Some(*step)),
        _ => return Err(wrong_arguments(function)),
    };
    let spec = checked(WindowSpec { size_ms, advance_ms, step_ms, grace_ms: None })?;
    Ok((time, spec, ["window_start".into(), "window_end".into()]))
}

fn checked(spec: WindowSpec) -> Result<WindowSpec> {
    let reason = if spec.size_ms <= 0 || spec.advance_ms <= 0 {
        "its lengths must be positive"
    } else if spec.advance_ms > spec.size_ms {
        "the advance must not be longer than the window"
    } else if spec.step_ms.is_some_and(|step| step <= 0 || spec.size_ms % step != 0) {
        "its length must be a multiple of its step"
    } else if spec.size_ms / spec.step_ms.unwrap_or(spec.advance_ms) > MAX_WINDOWS {
        "a row would fall into more than 10000 windows"
    } else {
        return Ok(spec);
    };
    Err(Error::invalid("window", reason).into())
}

fn length_ms(expr: Expr, context: &mut dyn RelationPlannerContext) -> Result<i64> {
    let expr = context.sql_to_expr(expr, &datafusion::common::DFSchema::empty())?;
    let milliseconds = match &expr {
        LogicalExpr::Literal(ScalarValue::IntervalMonthDayNano(Some(i)), _) if i.months == 0 => {
            Some(i64::from(i.days) * 86_400_000 + i.nanoseconds / 1_000_000)
        }
        LogicalExpr::Literal(ScalarValue::IntervalDayTime(Some(i)), _) => {
            Some(i64::from(i.days) * 86_400_000 + i64::from(i.milliseconds))
        }
        _ => None,
    };
    milliseconds.ok_or_else(|| {
        Error::invalid("window", "its length must be an interval without months, such as INTERVAL '1 hour'")
            .into()
    })
}

fn expressions(function: &str, args: &[FunctionArg]) -> Result<Vec<Expr>> {
    args.iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
            _ => Err(wrong_arguments(function)),
        })
        .collect()
}

/// The first argument names a relation: as an identifier, not as a value.
fn table_of(function: &str, expr: &Expr) -> Result<TableFactor> {
    let parts = match expr {
        Expr::Subquery(query) => {
            return Ok(TableFactor::Derived {
                lateral: false,
                subquery: query.clone(),
                alias: Some(plain_alias(Ident::new("rows"))),
                sample: None,
            });
        }
        Expr::Identifier(ident) => vec![ident.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        _ => return Err(wrong_arguments(function)),
    };
    Ok(table_functions::table(ObjectName::from(parts), None, None))
}

fn wrong_arguments(function: &str) -> datafusion::common::DataFusionError {
    let expected = match function {
        "session" => "SESSION(relation, time column, INTERVAL gap, key column, …)",
        "cumulate" => "CUMULATE(relation, time column, INTERVAL step, INTERVAL size)",
        "hop" => "HOP(relation, time column, INTERVAL slide, INTERVAL size)",
        _ => "TUMBLE(relation, time column, INTERVAL size)",
    };
    Error::invalid("window function", format!("expected {expected}")).into()
}
