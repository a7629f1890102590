//! ksqlDB's functions, put into words that PostgreSQL or DataFusion has.
//!
//! Source: ksqlDB, "Scalar functions" and "Aggregate functions". What these words mean, they mean on
//! tables too: an aggregate follows rows that are taken back.

use sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgOperator, FunctionArgumentClause, FunctionArguments, Ident, LambdaFunction,
    LambdaFunctionParameter, LambdaSyntax, ObjectName, OneOrManyWithParens, OrderByExpr, OrderByOptions,
    TimezoneInfo, Value,
};

use crate::functions::TIME_UNITS;

use super::spelling::{arguments, binary, call, call_of, name_of};

/// Other names of the same functions.
const NAMES: [(&str, &str); 13] = [
    ("array_join", "array_join_text"),
    ("collect_list", "array_agg"),
    ("correlation", "corr"),
    ("stddev_sample", "stddev_samp"),
    ("explode", "unnest"),
    ("len", "char_length"),
    ("lcase", "lower"),
    ("ucase", "upper"),
    ("ifnull", "coalesce"),
    ("array_contains", "array_has"),
    ("slice", "array_slice"),
    ("from_unixtime", "to_timestamp_millis"),
    ("sign", "signum"),
];
/// Aggregates that make a list.
const LISTS: [&str; 2] = ["collect_list", "collect_set"];
/// Functions that look at the offset of a row.
const BY_OFFSET: [&str; 2] = ["latest_by_offset", "earliest_by_offset"];

/// Aggregates that only ksqlDB has.
const AGGREGATES: [&str; 10] = [
    "collect_list",
    "collect_set",
    "correlation",
    "stddev_sample",
    "count_distinct",
    "topk",
    "topkdistinct",
    "attr",
    "latest_by_offset",
    "earliest_by_offset",
];

/// Whether a call is an aggregate of ksqlDB's.
pub(super) fn is_aggregate(function: &Function) -> bool {
    AGGREGATES.contains(&name_of(&function.name).as_str())
}

/// Whether a call looks at the offset of rows, which is then there.
pub(super) fn needs_offset(function: &Function) -> bool {
    BY_OFFSET.contains(&name_of(&function.name).as_str())
}

/// Whether a call makes a list of a group's values.
pub(super) fn collects(function: &Function) -> bool {
    LISTS.contains(&name_of(&function.name).as_str())
}

/// The order in which the rows of a stream came.
pub(super) fn arrival() -> Vec<OrderByExpr> {
    let column = |name: &str| ordered(&Expr::Identifier(Ident::new(name)), true);
    vec![column("rowoffset"), column("rowpartition")]
}

/// The same call in other words; None for one that needs none.
pub(super) fn rewritten(function: &mut Function) -> Option<Expr> {
    let name = name_of(&function.name);
    if matches!(name.as_str(), "transform" | "filter" | "reduce") {
        take_lambdas(function);
    }
    let arguments = arguments(function)?;
    match (name.as_str(), arguments.as_slice()) {
        ("struct", [_, ..]) => {
            let fields: Vec<Expr> = arguments.iter().map(field).collect::<Option<Vec<_>>>()?.concat();
            Some(call("named_struct", fields))
        }
        ("map", pairs) if pairs.iter().all(is_assignment) => {
            let side = |left: bool| {
                let values = pairs.iter().filter_map(|pair| match pair {
                    Expr::BinaryOp { left: key, right, .. } => Some(if left { key } else { right }),
                    _ => None,
                });
                call("make_array", values.map(|value| value.as_ref().clone()).collect())
            };
            Some(call("map", vec![side(true), side(false)]))
        }
        ("as_map", [keys, values]) => Some(call("map", vec![keys.clone(), values.clone()])),
        ("transform", [_, Expr::Lambda(_)]) => Some(call("array_transform", arguments)),
        ("transform", [_, Expr::Lambda(_), Expr::Lambda(_)]) => Some(call("map_transform", arguments)),
        ("filter", [_, Expr::Lambda(keeps)]) => {
            let name = if keeps.params.len() == 1 { "array_filter" } else { "map_filter" };
            Some(call(name, arguments))
        }
        ("encode", [_, _, _]) => Some(call("encode_text", arguments)),
        ("cube_explode", [list]) => Some(call("unnest", vec![call("cube_list", vec![list.clone()])])),
        ("unix_timestamp", []) => Some(call("unix_timestamp", vec![utc_now()])),
        ("unix_date", []) => Some(call("unix_date", vec![utc_now()])),
        (
            "dateadd" | "datesub" | "timeadd" | "timesub" | "timestampadd" | "timestampsub",
            [Expr::Identifier(unit), count, time],
        ) => {
            let unit = unit.value.to_ascii_uppercase();
            let (unit, _) =
                TIME_UNITS.iter().find(|(name, _)| *name == unit || name.strip_suffix('S') == Some(&unit))?;
            let unit = Expr::value(Value::SingleQuotedString((*unit).to_owned()));
            Some(call(&name, vec![unit, count.clone(), time.clone()]))
        }
        // NULL comes last, whichever way.
        ("array_sort", [list, rest @ ..]) if rest.len() <= 1 => {
            let text = |text: &str| Expr::value(Value::SingleQuotedString(text.to_owned()));
            let order = rest.first().cloned().unwrap_or_else(|| text("ASC"));
            Some(call("array_sort", vec![list.clone(), order, text("NULLS LAST")]))
        }
        // With a text for NULLs it is PostgreSQL's; without, ksqlDB writes the word null.
        ("array_join", [_, _, _]) => Some(call("array_to_string", arguments)),
        ("instr", [_, _, _] | [_, _, _, _]) => Some(call("instr_from", arguments)),
        ("instr", [text, part]) => Some(call("strpos", vec![text.clone(), part.clone()])),
        ("as_value", [value]) => Some(Expr::Nested(Box::new(value.clone()))),
        ("count_distinct", [value]) => {
            Some(aggregate("count", value, true, None, function.filter.as_deref()))
        }
        ("collect_set", [value]) => match order_of(function) {
            Some(order) => {
                let all = aggregate("array_agg", value, false, Some(order), function.filter.as_deref());
                Some(call("array_distinct", vec![all]))
            }
            None => {
                let order = Some(vec![ordered(value, true)]);
                Some(aggregate("array_agg", value, true, order, function.filter.as_deref()))
            }
        },
        ("topk" | "topkdistinct", [value, k]) => {
            let filter = is_there(value, function.filter.as_deref());
            let order = Some(vec![ordered(value, false)]);
            let sorted = aggregate("array_agg", value, name == "topkdistinct", order, Some(&filter));
            Some(call("array_slice", vec![sorted, number("1"), k.clone()]))
        }
        // With more columns, those of the rows with the largest values.
        ("topk", [value, others @ .., k]) if !others.is_empty() => {
            let filter = is_there(value, function.filter.as_deref());
            let text = |text: String| Expr::value(Value::SingleQuotedString(text));
            let named = others.iter().enumerate().map(|(n, other)| [text(format!("col{n}")), other.clone()]);
            let first = [text("sort_col".to_owned()), value.clone()];
            let row = call("named_struct", first.into_iter().chain(named.flatten()).collect());
            let sorted =
                aggregate("array_agg", &row, false, Some(vec![ordered(value, false)]), Some(&filter));
            Some(call("array_slice", vec![sorted, number("1"), k.clone()]))
        }
        ("attr", [value]) => Some(attribute(value, function.filter.as_deref())),
        ("latest_by_offset" | "earliest_by_offset", [value, rest @ ..]) => {
            by_offset(name == "latest_by_offset", value, rest, function.filter.as_deref())
        }
        _ => {
            let (_, other) = NAMES.iter().find(|(ksql, _)| *ksql == name)?;
            function.name = ObjectName::from(vec![Ident::new(*other)]);
            None
        }
    }
}

/// The time of the statement as a time of UTC.
fn utc_now() -> Expr {
    sql::cast_to(call("now", Vec::new()), DataType::Timestamp(None, TimezoneInfo::None))
}

/// `x => …` and `(x, y) => …`, which are read as arguments with a name, as functions.
fn take_lambdas(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for argument in &mut list.args {
        let FunctionArg::ExprNamed {
            name,
            arg: FunctionArgExpr::Expr(body),
            operator: FunctionArgOperator::RightArrow,
        } = argument
        else {
            continue;
        };
        let Some(params) = parameters(name) else { continue };
        let lambda = LambdaFunction {
            params: OneOrManyWithParens::Many(params),
            body: Box::new(body.clone()),
            syntax: LambdaSyntax::Arrow,
        };
        *argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Lambda(lambda)));
    }
}

fn parameters(names: &Expr) -> Option<Vec<LambdaFunctionParameter>> {
    let parameter = |name: &Expr| match name {
        Expr::Identifier(name) => Some(LambdaFunctionParameter { name: name.clone(), data_type: None }),
        _ => None,
    };
    match names {
        Expr::Nested(one) => parameters(one),
        Expr::Tuple(names) => names.iter().map(parameter).collect(),
        one => Some(vec![parameter(one)?]),
    }
}

/// Name and value of `name := value`.
fn field(argument: &Expr) -> Option<Vec<Expr>> {
    let Expr::BinaryOp { left, op: BinaryOperator::Assignment, right } = argument else { return None };
    let Expr::Identifier(name) = left.as_ref() else { return None };
    Some(vec![Expr::value(Value::SingleQuotedString(sql::fold(name))), right.as_ref().clone()])
}

fn is_assignment(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::Assignment, .. })
}

/// The first or last value, or so many of them, in the order of offsets; without NULLs unless told.
fn by_offset(latest: bool, value: &Expr, rest: &[Expr], filter: Option<&Expr>) -> Option<Expr> {
    let (count, ignores) = match rest {
        [] => (None, true),
        [one] => match boolean(one) {
            Some(ignores) => (None, ignores),
            None => (Some(one.clone()), true),
        },
        [count, ignores] => (Some(count.clone()), boolean(ignores)?),
        _ => return None,
    };
    let filter = if ignores { Some(is_there(value, filter)) } else { filter.cloned() };
    let order = Some(arrival());
    let Some(count) = count else {
        let function = if latest { "last_value" } else { "first_value" };
        return Some(aggregate(function, value, false, order, filter.as_ref()));
    };
    let all = aggregate("array_agg", value, false, order, filter.as_ref());
    let (from, to) = match latest {
        true => (binary(number("0"), BinaryOperator::Minus, count), number("-1")),
        false => (number("1"), count),
    };
    let some = call("array_slice", vec![all, from, to]);
    Some(call("coalesce", vec![some, call("make_array", Vec::new())]))
}

/// ORDER BY inside of a call.
fn order_of(function: &Function) -> Option<Vec<OrderByExpr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    list.clauses.iter().find_map(|clause| match clause {
        FunctionArgumentClause::OrderBy(order) => Some(order.clone()),
        _ => None,
    })
}

/// The value that all rows have; NULL when they differ.
fn attribute(value: &Expr, filter: Option<&Expr>) -> Expr {
    let least = aggregate("min", value, false, None, filter);
    let greatest = aggregate("max", value, false, None, filter);
    let nulls = Expr::IsNull(Box::new(value.clone()));
    let any_null = aggregate("bool_or", &nulls, false, None, filter);
    let none_null = binary(any_null, BinaryOperator::Eq, Expr::value(Value::Boolean(false)));
    let same = binary(least.clone(), BinaryOperator::Eq, greatest);
    Expr::Case {
        case_token: sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        end_token: sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![sql::sqlparser::ast::CaseWhen {
            condition: binary(same, BinaryOperator::And, none_null),
            result: least,
        }],
        else_result: None,
    }
}

fn aggregate(
    name: &str,
    value: &Expr,
    distinct: bool,
    order: Option<Vec<OrderByExpr>>,
    filter: Option<&Expr>,
) -> Expr {
    let mut function = call_of(name, vec![value.clone()]);
    function.filter = filter.cloned().map(Box::new);
    if let FunctionArguments::List(list) = &mut function.args {
        list.duplicate_treatment = distinct.then_some(DuplicateTreatment::Distinct);
        list.clauses = order.map(FunctionArgumentClause::OrderBy).into_iter().collect();
    }
    Expr::Function(function)
}

fn is_there(value: &Expr, filter: Option<&Expr>) -> Expr {
    let there = Expr::IsNotNull(Box::new(value.clone()));
    match filter {
        Some(filter) => binary(Expr::Nested(Box::new(filter.clone())), BinaryOperator::And, there),
        None => there,
    }
}

fn ordered(expr: &Expr, ascending: bool) -> OrderByExpr {
    let options = OrderByOptions { asc: Some(ascending), nulls_first: None };
    OrderByExpr { expr: expr.clone(), options, with_fill: None }
}

pub(super) fn number(text: &str) -> Expr {
    Expr::value(Value::Number(text.into(), false))
}

fn boolean(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Value(value) => match value.value {
            Value::Boolean(value) => Some(value),
            _ => None,
        },
        _ => None,
    }
}
