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

use crate::error::Error;
use crate::window_assign::{WindowAssign, WindowSpec};

/// The clause's own function: relation, size, advance, grace, all in ms.
const CLAUSE: &str = "__millpond_windowed";
/// Grace where a WINDOW clause names none: ksqlDB's 24 hours, less the window.
const DEFAULT_GRACE_MS: i64 = 24 * 3_600_000;
/// Most windows one row may fall into.
const MAX_WINDOWS: i64 = 10_000;
const BOUNDS: [&str; 2] = ["windowstart", "windowend"];

/// Rewrites a SELECT with a WINDOW clause to one over the windowed first relation.
pub(super) fn apply(select: &mut Select, window: &Window, show_bounds: bool) -> Result<(), Error> {
    let (size, advance) = match window.kind {
        WindowKind::Tumbling { size_ms } => (size_ms, size_ms),
        WindowKind::Hopping { size_ms, advance_ms } => (size_ms, advance_ms),
        WindowKind::Session { .. } => {
            return Err(Error::NotSupported {
                what: "WINDOW SESSION".into(),
                continuous: false,
                hint: Some("WINDOW TUMBLING and WINDOW HOPPING are".into()),
            });
        }
    };
    let grace = window.grace_ms.unwrap_or((DEFAULT_GRACE_MS - size).max(0));
    let Some(TableFactor::Table { name, alias, args, .. }) = select.from.first_mut().map(|t| &mut t.relation)
    else {
        return Err(Error::Definition("WINDOW needs a stream after FROM".into()));
    };
    if args.is_some() {
        return Err(Error::Definition("WINDOW and a window function exclude each other".into()));
    }
    let relation = name.0.last().and_then(|part| part.as_ident()).cloned().unwrap_or_else(|| Ident::new(""));
    if alias.is_none() {
        *alias = Some(plain_alias(relation.clone()));
    }
    let mut arguments = vec![argument(Expr::Identifier(relation))];
    arguments
        .extend([size, advance, grace].map(|n| argument(Expr::value(Value::Number(n.to_string(), false)))));
    *args = Some(TableFunctionArgs { args: arguments, settings: None });
    *name = ObjectName::from(vec![Ident::new(CLAUSE)]);
    group_by_bounds(select, show_bounds);
    Ok(())
}

fn plain_alias(name: Ident) -> sql::sqlparser::ast::TableAlias {
    sql::sqlparser::ast::TableAlias { explicit: false, name, columns: Vec::new(), at: None }
}

fn argument(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn group_by_bounds(select: &mut Select, show: bool) {
    let bounds = BOUNDS.map(|name| Expr::Identifier(Ident::new(name)));
    if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
        let shown = select.projection.iter().any(|item| BOUNDS.iter().any(|b| names(item, b)));
        if show && !shown {
            let after = select.projection.iter().rposition(|item| is_key(item, keys)).map_or(0, |i| i + 1);
            for (n, bound) in bounds.iter().enumerate() {
                select.projection.insert(after + n, SelectItem::UnnamedExpr(bound.clone()));
            }
        }
        keys.extend(bounds);
    }
}

fn names(item: &SelectItem, name: &str) -> bool {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(ident))
        | SelectItem::ExprWithAlias { expr: Expr::Identifier(ident), .. } => sql::fold(ident) == name,
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
        if !matches!(function.as_str(), "tumble" | "hop" | CLAUSE) {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        }
        let arguments = expressions(&function, &arguments.args)?;
        let (source, rest) = arguments.split_first().ok_or_else(|| wrong_arguments(&function))?;
        let input = context.plan(table_of(&function, source)?)?;
        let qualifier = input.schema().iter().next().and_then(|(q, _)| q.cloned());
        let (time, spec, names) = window(&function, rest, &input, context)?;
        let node = WindowAssign::try_new(input, time, spec, qualifier, names)?;
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
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
        let spec =
            checked(WindowSpec { size_ms: ms(size)?, advance_ms: ms(advance)?, grace_ms: Some(ms(grace)?) })?;
        return Ok((time, spec, BOUNDS.map(str::to_owned)));
    }
    let (time, lengths) = rest.split_first().ok_or_else(|| wrong_arguments(function))?;
    let time = context.sql_to_expr(time.clone(), input.schema())?;
    let lengths = lengths.iter().map(|e| length_ms(e.clone(), context)).collect::<Result<Vec<_>>>()?;
    let (size_ms, advance_ms) = match (function, lengths.as_slice()) {
        ("tumble", [size]) => (*size, *size),
        ("hop", [slide, size]) => (*size, *slide),
        _ => return Err(wrong_arguments(function)),
    };
    let spec = checked(WindowSpec { size_ms, advance_ms, grace_ms: None })?;
    Ok((time, spec, ["window_start".into(), "window_end".into()]))
}

fn checked(spec: WindowSpec) -> Result<WindowSpec> {
    let reason = if spec.size_ms <= 0 || spec.advance_ms <= 0 {
        "its lengths must be positive"
    } else if spec.advance_ms > spec.size_ms {
        "the advance must not be longer than the window"
    } else if spec.size_ms / spec.advance_ms > MAX_WINDOWS {
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
        Expr::Identifier(ident) => vec![ident.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        _ => return Err(wrong_arguments(function)),
    };
    Ok(TableFactor::Table {
        name: ObjectName::from(parts),
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    })
}

fn wrong_arguments(function: &str) -> datafusion::common::DataFusionError {
    let expected = match function {
        "hop" => "HOP(relation, time column, INTERVAL slide, INTERVAL size)",
        _ => "TUMBLE(relation, time column, INTERVAL size)",
    };
    Error::invalid("window function", format!("expected {expected}")).into()
}
