//! Calls of PostgreSQL's functions, put into words that DataFusion has.

use sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, Ident, ObjectName, OrderByExpr, OrderByOptions, TimezoneInfo, Value,
};

use super::spelling::{arguments, array_literal, binary, call, call_of, name_of, one_argument};

/// What stands for a call, if another expression does; else it may have another name and other arguments.
pub(super) fn rewritten(function: &mut Function) -> Option<Expr> {
    rename(function);
    match name_of(&function.name).as_str() {
        "percentile_disc" => discrete_percentile(function),
        "json_agg" => json_aggregate(function, "json_of_elements", false),
        "jsonb_agg" => json_aggregate(function, "jsonb_of_elements", false),
        "json_object_agg" => json_aggregate(function, "json_of_members", true),
        "jsonb_object_agg" => json_aggregate(function, "jsonb_of_members", true),
        "mod" => modulo(function),
        "array_lower" => lower_bound(function),
        "date_trunc" => zoned_trunc(function),
        "make_interval" => made_interval(function),
        "encode" => {
            literal_bytes(function);
            coded(function, "escape", "encode_escape").or_else(|| coded(function, "base64", "encode_base64"))
        }
        "decode" => coded(function, "escape", "bytea_in"),
        _ => None,
    }
}

/// Functions under other names.
fn rename(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    match name_of(&function.name).as_str() {
        name @ ("arg_min" | "arg_max") if list.args.len() == 2 => {
            let descending = name == "arg_max";
            let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(by))) = list.args.pop() else { return };
            let options = OrderByOptions { asc: Some(!descending), nulls_first: Some(false) };
            let known = Expr::IsNotNull(Box::new(by.clone()));
            let filter = function
                .filter
                .take()
                .map_or(known.clone(), |filter| binary(Expr::Nested(filter), BinaryOperator::And, known));
            function.filter = Some(Box::new(filter));
            list.clauses.push(FunctionArgumentClause::OrderBy(vec![OrderByExpr {
                expr: by,
                options,
                with_fill: None,
            }]));
            function.name = ObjectName::from(vec![Ident::new("first_value")]);
        }
        "mode" if list.args.is_empty() && function.within_group.len() == 1 => {
            let value = function.within_group.remove(0).expr;
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(value)));
        }
        "gen_random_uuid" if list.args.is_empty() => {
            *list = one_argument(call("uuid", Vec::new()));
            function.name = ObjectName::from(vec![Ident::new("uuid_in")]);
        }
        // A path of names is an array.
        "jsonb_set" => {
            if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(path))) = list.args.get_mut(1)
                && let Some(array) = array_literal(path, false)
            {
                *path = array;
            }
        }
        // A text beside a time is one.
        "age" if list.args.len() == 2 => list.args.iter_mut().for_each(as_time),
        "generate_series" if matches!(list.args.as_slice(), [_, _, step] if is_interval(step)) => {
            list.args.iter_mut().take(2).for_each(as_time);
        }
        "every" => function.name = ObjectName::from(vec![Ident::new("bool_and")]),
        "variance" => function.name = ObjectName::from(vec![Ident::new("var_samp")]),
        "age" if list.args.len() == 1 => {
            let today = call("current_date", Vec::new());
            let midnight = sql::cast_to(today, DataType::Timestamp(None, TimezoneInfo::None));
            let today = FunctionArg::Unnamed(FunctionArgExpr::Expr(midnight));
            list.args.insert(0, today);
        }
        "clock_timestamp" | "transaction_timestamp" | "statement_timestamp" => {
            function.name = ObjectName::from(vec![Ident::new("now")]);
        }
        _ => {}
    }
}

/// json_agg and json_object_agg: the JSON of an array of what is aggregated.
fn json_aggregate(function: &Function, json: &str, members: bool) -> Option<Expr> {
    let mut aggregate = function.clone();
    aggregate.name = ObjectName::from(vec![Ident::new("array_agg")]);
    let mut arguments = arguments(function)?;
    let FunctionArguments::List(list) = &mut aggregate.args else { return None };
    // Whether a value is JSON already is known of the value, not of a list.
    let value = call("to_json", vec![arguments.pop()?]);
    let aggregated = if members { call("struct", vec![arguments.pop()?, value]) } else { value };
    list.args = one_argument(aggregated).args;
    Some(call(json, vec![Expr::Function(aggregate)]))
}

/// percentile_disc(f) WITHIN GROUP (ORDER BY v): the element of the sorted values at f of their number.
fn discrete_percentile(function: &Function) -> Option<Expr> {
    let (FunctionArguments::List(list), [order]) = (&function.args, function.within_group.as_slice()) else {
        return None;
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction))] = list.args.as_slice() else { return None };
    let there = Expr::IsNotNull(Box::new(order.expr.clone()));
    let filter = match &function.filter {
        Some(filter) => binary(Expr::Nested(filter.clone()), BinaryOperator::And, there),
        None => there,
    };
    let aggregate = |name: &str, clauses| {
        let mut call = call_of(name, vec![order.expr.clone()]);
        call.filter = Some(Box::new(filter.clone()));
        if let FunctionArguments::List(list) = &mut call.args {
            list.clauses = clauses;
        }
        Expr::Function(call)
    };
    let sorted = aggregate("array_agg", vec![FunctionArgumentClause::OrderBy(vec![order.clone()])]);
    let place = call(
        "ceil",
        vec![binary(
            Expr::Nested(Box::new(fraction.clone())),
            BinaryOperator::Multiply,
            aggregate("count", Vec::new()),
        )],
    );
    let place = sql::cast_to(place, DataType::BigInt(None));
    let one = Expr::value(Value::Number("1".into(), false));
    Some(call("array_element", vec![sorted, call("greatest", vec![place, one])]))
}

/// Makes a time of a text, and of a day.
fn as_time(argument: &mut FunctionArg) {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else { return };
    let is_text = matches!(expr, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
    let is_day = matches!(expr, Expr::TypedString(typed) if typed.data_type == DataType::Date)
        || matches!(expr, Expr::Cast { data_type: DataType::Date, .. });
    if is_text || is_day {
        *expr = sql::cast_to(expr.clone(), DataType::Timestamp(None, TimezoneInfo::None));
    }
}

fn is_interval(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else { return false };
    match expr {
        Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } => matches!(data_type, DataType::Interval { .. }),
        _ => false,
    }
}

/// mod(a, b) is the operator, which is for all numbers.
fn modulo(function: &Function) -> Option<Expr> {
    let arguments = arguments(function)?;
    let [dividend, divisor] = arguments.as_slice() else { return None };
    let nested = |e: &Expr| Expr::Nested(Box::new(e.clone()));
    Some(Expr::Nested(Box::new(binary(nested(dividend), BinaryOperator::Modulo, nested(divisor)))))
}

/// date_trunc in a time zone: of the time on the wall there.
fn zoned_trunc(function: &Function) -> Option<Expr> {
    let arguments = arguments(function)?;
    let [unit, instant, zone] = arguments.as_slice() else { return None };
    let wall = call("timezone", vec![zone.clone(), instant.clone()]);
    Some(call("timezone", vec![zone.clone(), call("date_trunc", vec![unit.clone(), wall])]))
}

/// make_interval(): a sum of so many years, months and so on.
fn made_interval(function: &Function) -> Option<Expr> {
    const UNITS: [(&str, &str); 7] = [
        ("years", "year"),
        ("months", "month"),
        ("weeks", "week"),
        ("days", "day"),
        ("hours", "hour"),
        ("mins", "minute"),
        ("secs", "second"),
    ];
    let FunctionArguments::List(list) = &function.args else { return None };
    let part = |(at, argument): (usize, &FunctionArg)| {
        let (unit, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (UNITS.get(at)?, value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. }
            | FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(value),
                ..
            } => {
                let name = sql::fold(name);
                (UNITS.iter().find(|(known, _)| *known == name)?, value)
            }
            _ => return None,
        };
        let one = sql::cast_to(
            Expr::value(Value::SingleQuotedString(format!("1 {}", unit.1))),
            DataType::Interval { fields: None, precision: None },
        );
        Some(binary(one, BinaryOperator::Multiply, Expr::Nested(Box::new(value.clone()))))
    };
    let parts = list.args.iter().enumerate().map(part).collect::<Option<Vec<_>>>()?;
    let sum = parts.into_iter().reduce(|sum, part| binary(sum, BinaryOperator::Plus, part))?;
    Some(Expr::Nested(Box::new(sum)))
}

/// encode and decode in an encoding that DataFusion has not, or not as PostgreSQL has it.
fn coded(function: &Function, encoding: &str, stands_for: &str) -> Option<Expr> {
    let arguments = arguments(function)?;
    let [value, Expr::Value(named)] = arguments.as_slice() else { return None };
    let is_it = matches!(&named.value, Value::SingleQuotedString(e) if e.eq_ignore_ascii_case(encoding));
    is_it.then(|| call(stands_for, vec![value.clone()]))
}

/// The bytes that a literal spells, where bytes should be.
fn literal_bytes(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(bytes))) = list.args.first_mut()
        && matches!(bytes, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)))
    {
        *bytes = call("bytea_in", vec![bytes.clone()]);
    }
}

/// array_lower: arrays begin with 1, those that have elements.
fn lower_bound(function: &Function) -> Option<Expr> {
    let length = call("array_length", arguments(function)?);
    let zero = Expr::value(Value::Number("0".into(), false));
    Some(sql::cast_to(call("nullif", vec![call("signum", vec![length]), zero]), DataType::Integer(None)))
}
