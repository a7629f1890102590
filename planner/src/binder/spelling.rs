//! PostgreSQL's spellings that DataFusion reads otherwise, put into words it has.

use sql::sqlparser::ast::{
    AccessExpr, Array, BinaryOperator, DataType, DateTimeField, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Query, SelectItem, SetExpr,
    TimezoneInfo, UnaryOperator, Value,
};

use super::{calls, ksql};

/// The type of LOCALTIMESTAMP and LOCALTIME, which are now() in it.
fn local_time(name: &ObjectName) -> Option<DataType> {
    match name.to_string().to_ascii_lowercase().as_str() {
        "localtimestamp" => Some(DataType::Timestamp(None, TimezoneInfo::None)),
        "localtime" => Some(DataType::Time(None, TimezoneInfo::None)),
        _ => None,
    }
}

/// An expression, its parts being done already.
pub(super) fn expression(expr: &mut Expr) {
    if let Some(any) = like_any(expr) {
        *expr = any;
        return;
    }
    match expr {
        // EXISTS (SELECT FROM …) asks for rows, whatever is in them.
        Expr::Exists { subquery, .. } => {
            if let SetExpr::Select(select) = subquery.body.as_mut()
                && select.projection.is_empty()
            {
                let one = Expr::value(Value::Number("1".into(), false));
                select.projection.push(SelectItem::UnnamedExpr(one));
            }
        }
        Expr::Function(Function { name, args: FunctionArguments::None, .. })
            if local_time(name).is_some() =>
        {
            let Some(data_type) = local_time(name) else { return };
            *expr = sql::cast_to(call("now", Vec::new()), data_type);
        }
        Expr::Extract { field, syntax, expr: inner } if long_years(field).is_some() => {
            let Some(years) = long_years(field) else { return };
            let year =
                Expr::Extract { field: DateTimeField::Year, syntax: syntax.clone(), expr: inner.clone() };
            *expr = in_long_years(year, years);
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            *expr = call("timezone", vec![time_zone.as_ref().clone(), timestamp.as_ref().clone()]);
        }
        // A cast would take the text's own bytes.
        Expr::Cast { expr: inner, data_type: DataType::Bytea, .. } => {
            *expr = call("bytea_in", vec![inner.as_ref().clone()]);
        }
        Expr::Cast { expr: inner, data_type, .. } if reading(data_type).is_some() => {
            if let Some((function, rest)) = reading(data_type) {
                *expr = call(function, [vec![inner.as_ref().clone()], rest].concat());
            }
        }
        Expr::TypedString(typed) if reading(&typed.data_type).is_some() => {
            if let Some((function, rest)) = reading(&typed.data_type) {
                *expr = call(function, [vec![Expr::Value(typed.value.clone())], rest].concat());
            }
        }
        // A whole number that is no BIGINT is NUMERIC, and no double.
        Expr::Value(value) if is_long(&value.value) => {
            let digits = Value::SingleQuotedString(value.value.to_string());
            *expr = sql::cast_to(
                Expr::value(digits),
                DataType::Numeric(ExactNumberInfo::PrecisionAndScale(38, 0)),
            );
        }
        // A number with a point is a double on its own; as NUMERIC it is exact.
        Expr::Cast { expr: inner, data_type: DataType::Numeric(info) | DataType::Decimal(info), .. } => {
            let Expr::Value(value) = inner.as_mut() else { return };
            if let Value::Number(number, _) = &value.value
                && !number.contains(['e', 'E'])
            {
                value.value = Value::SingleQuotedString(number.clone());
            }
            // Without digits it has those that are written.
            if let (Value::SingleQuotedString(number), ExactNumberInfo::None) = (&value.value, &info)
                && let Some(scale) = digits_behind_point(number)
            {
                *info = ExactNumberInfo::PrecisionAndScale(38, scale);
            }
        }
        Expr::Cast { expr: inner, data_type: DataType::Timestamp(..), .. } => {
            if let Expr::Value(value) = inner.as_mut() {
                with_seconds(&mut value.value);
            }
        }
        Expr::TypedString(typed) if matches!(typed.data_type, DataType::Timestamp(..)) => {
            with_seconds(&mut typed.value.value);
        }
        // The sign binds more than the power.
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: power }
            if matches!(power.as_ref(), Expr::BinaryOp { op: BinaryOperator::PGExp, .. }) =>
        {
            let mut base = power.as_mut();
            while let Expr::BinaryOp { left, op: BinaryOperator::PGExp, .. } = base {
                base = left.as_mut();
            }
            *base = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(base.clone()) };
            *expr = power.as_ref().clone();
        }
        // ksqlDB's field of a struct; PostgreSQL's operator of that spelling has a text on its right.
        Expr::BinaryOp { left, op: BinaryOperator::Arrow, right } => match right.as_mut() {
            Expr::Identifier(field) => *expr = field_of(left, field),
            // What a subscript is for is the field.
            Expr::CompoundFieldAccess { root, access_chain } => {
                if let Expr::Identifier(field) = root.as_ref() {
                    let (root, access_chain) =
                        (Box::new(field_of(left, field)), std::mem::take(access_chain));
                    *expr = Expr::CompoundFieldAccess { root, access_chain };
                }
            }
            _ => {}
        },
        // A path of names is an array.
        Expr::BinaryOp { op: BinaryOperator::HashArrow | BinaryOperator::HashLongArrow, right, .. } => {
            if let Some(array) = array_literal(right, false) {
                **right = array;
            }
        }
        // The text of an array is one where an array must be.
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
            if let Some(array) = array_literal(right, true) {
                **right = array;
            }
        }
        Expr::Substring { expr: text, substring_from, substring_for, .. } => {
            let from = substring_from.take().unwrap_or_else(|| Box::new(ksql::number("1")));
            // A text where a place should be is a pattern.
            let is_pattern =
                matches!(from.as_ref(), Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)));
            let function = if is_pattern && substring_for.is_none() { "substring_pattern" } else { "substr" };
            let length = substring_for.take().map(|length| *length);
            *expr = call(function, [text.as_ref().clone(), *from].into_iter().chain(length).collect());
        }
        Expr::Position { expr: sought, r#in: text } => {
            *expr = call("strpos", vec![text.as_ref().clone(), sought.as_ref().clone()]);
        }
        // Its patterns are of their own kind.
        Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
            let escape =
                escape_char.take().map_or_else(|| Value::SingleQuotedString("\\".into()), |e| e.value);
            let pattern = call("similar_pattern", vec![pattern.as_ref().clone(), Expr::value(escape)]);
            let matches = call("regexp_like", vec![text.as_ref().clone(), pattern]);
            *expr = match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(matches) },
                false => matches,
            };
        }
        // Texts are compared byte by byte, which is what it says.
        Expr::Collate { expr: inner, collation } if sql::check_collation(collation).is_ok() => {
            *expr = inner.as_ref().clone();
        }
        Expr::Interval(interval) => {
            if let Expr::Value(value) = interval.value.as_mut() {
                as_units(&mut value.value);
            }
        }
        Expr::Cast { expr: inner, data_type: DataType::Interval { .. }, .. } => {
            if let Expr::Value(value) = inner.as_mut() {
                as_units(&mut value.value);
            }
        }
        // Only the backslash escapes.
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                **pattern = call("like_pattern", vec![pattern.as_ref().clone(), Expr::Value(escape)]);
            }
        }
        // A field of what is in parentheses.
        Expr::CompoundFieldAccess { root, access_chain } => {
            if let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() {
                *expr = field_of(root, field);
            }
        }
        // A row among the rows of a query; NOT IN has other rules for NULL, and stays refused.
        Expr::InSubquery { expr: row, subquery, negated: false } => {
            if let Expr::Tuple(values) = row.as_ref()
                && let Some(exists) = row_among(values, subquery)
            {
                *expr = exists;
            }
        }
        // The two's complement has no operator of its own.
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: inner } => {
            let minus_one = Expr::value(Value::Number("-1".into(), false));
            *expr = Expr::Nested(Box::new(binary(minus_one, BinaryOperator::Minus, inner.as_ref().clone())));
        }
        Expr::UnaryOp { op, expr: inner } if function_of(*op).is_some() => {
            if let Some(name) = function_of(*op) {
                *expr = call(name, vec![inner.as_ref().clone()]);
            }
        }
        Expr::Function(function) => {
            let rewritten = calls::rewritten(function);
            if let Some(value) = rewritten.or_else(|| ksql::rewritten(function)) {
                *expr = value;
            }
        }
        _ => {}
    }
}

/// How many years a decade, a century and a millennium have.
fn long_years(field: &DateTimeField) -> Option<u32> {
    match field {
        DateTimeField::Decade => Some(10),
        DateTimeField::Century => Some(100),
        DateTimeField::Millennium | DateTimeField::Millenium => Some(1000),
        _ => None,
    }
}

/// The decade that a year is of, or the century or millennium: those begin with the year 1.
///
/// Source: PostgreSQL, "EXTRACT, date_part".
fn in_long_years(year: Expr, years: u32) -> Expr {
    let number = |n: u32| Expr::value(Value::Number(n.to_string(), false));
    let year = sql::cast_to(year, DataType::BigInt(None));
    let counted = match years {
        10 => year,
        _ => Expr::Nested(Box::new(binary(year, BinaryOperator::Plus, number(years - 1)))),
    };
    Expr::Nested(Box::new(binary(counted, BinaryOperator::Divide, number(years))))
}

/// The function that an operator in front of (or behind) a value stands for.
fn function_of(operator: UnaryOperator) -> Option<&'static str> {
    match operator {
        UnaryOperator::PGSquareRoot => Some("sqrt"),
        UnaryOperator::PGCubeRoot => Some("cbrt"),
        UnaryOperator::PGAbs => Some("abs"),
        UnaryOperator::PGPostfixFactorial | UnaryOperator::PGPrefixFactorial => Some("factorial"),
        _ => None,
    }
}

fn as_units(value: &mut Value) {
    if let Value::SingleQuotedString(text) = value
        && let Some(units) = crate::functions::interval_units(text)
    {
        *text = units;
    }
}

/// LIKE ANY of an array that is written out: one LIKE for each pattern.
fn like_any(expr: &Expr) -> Option<Expr> {
    let (Expr::Like { any: true, pattern, .. } | Expr::ILike { any: true, pattern, .. }) = expr else {
        return None;
    };
    let array = match pattern.as_ref() {
        Expr::Nested(inner) => inner.as_ref(),
        pattern => pattern,
    };
    let patterns = match array {
        Expr::Array(array) => array.elem.clone(),
        literal => match array_literal(literal, false)? {
            Expr::Array(array) => array.elem,
            _ => return None,
        },
    };
    let one = |one: Expr| {
        let mut like = expr.clone();
        if let Expr::Like { any, pattern, .. } | Expr::ILike { any, pattern, .. } = &mut like {
            (*any, **pattern) = (false, one);
        }
        like
    };
    let any = patterns.into_iter().map(one).reduce(|a, b| binary(a, BinaryOperator::Or, b))?;
    Some(Expr::Nested(Box::new(any)))
}

/// How many digits a number has behind its point; None for what is written in another way.
fn digits_behind_point(number: &str) -> Option<i64> {
    let digits = number.trim().trim_start_matches(['-', '+']);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let fits = plain(whole) && plain(fraction) && !digits.is_empty() && digits.len() <= 38;
    i64::try_from(fraction.len()).ok().filter(|_| fits)
}

fn field_of(record: &Expr, field: &Ident) -> Expr {
    call("get_field", vec![record.clone(), Expr::value(Value::SingleQuotedString(sql::fold(field)))])
}

/// The function that reads a type which Arrow has not, and what it is told besides the text.
fn reading(data_type: &DataType) -> Option<(&'static str, Vec<Expr>)> {
    match data_type {
        DataType::Uuid => Some(("uuid_in", Vec::new())),
        DataType::JSON => Some(("json_in", Vec::new())),
        DataType::JSONB => Some(("jsonb_in", Vec::new())),
        _ => match sql::TextType::of_sql(data_type) {
            Some(sql::TextType::Varchar(Some(most))) => {
                Some(("varchar_in", vec![Expr::value(Value::Number(most.to_string(), false))]))
            }
            _ => None,
        },
    }
}

/// `(a, b) IN (query)` as EXISTS with an equality for each column.
fn row_among(values: &[Expr], query: &Query) -> Option<Expr> {
    let name = |i: usize| format!("\"\u{1}in{i}\"");
    let names: Vec<String> = (0..values.len()).map(name).collect();
    let equal: Vec<String> =
        values.iter().enumerate().map(|(i, value)| format!("{} = ({value})", name(i))).collect();
    let (names, equal) = (names.join(", "), equal.join(" AND "));
    let exists = format!("EXISTS (SELECT 1 FROM ({query}) AS \"\u{1}in\" ({names}) WHERE {equal})");
    sql::parse_condition(&exists).ok()
}

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// `'{1,2}'` as `ARRAY[1,2]`, of numbers where all are and they may be; only for elements without commas and
/// braces inside.
pub(super) fn array_literal(expr: &Expr, numbers: bool) -> Option<Expr> {
    let text = match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => text,
            _ => return None,
        },
        Expr::Nested(inner) => return array_literal(inner, numbers),
        _ => return None,
    };
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    if inner.trim().is_empty() || inner.contains(['{', '\\']) {
        return None;
    }
    let element = |text: &'_ str| -> Option<String> {
        let text = text.trim();
        match text.strip_prefix('"') {
            Some(quoted) => {
                quoted.strip_suffix('"').filter(|inside| !inside.contains('"')).map(str::to_owned)
            }
            None => Some(text.to_owned()).filter(|text| !text.contains('"')),
        }
    };
    let elements = inner.split(',').map(element).collect::<Option<Vec<String>>>()?;
    let whole = numbers && elements.iter().all(|e| e.parse::<i64>().is_ok());
    let element = |text: &String| {
        Expr::value(match whole {
            true => Value::Number(text.clone(), false),
            false => Value::SingleQuotedString(text.clone()),
        })
    };
    Some(Expr::Array(Array { elem: elements.iter().map(element).collect(), named: true }))
}

/// PostgreSQL takes times without seconds.
fn with_seconds(value: &mut Value) {
    let Value::SingleQuotedString(text) = value else { return };
    let bytes = text.trim().as_bytes();
    let digits = |range: std::ops::Range<usize>| bytes[range].iter().all(u8::is_ascii_digit);
    let short = bytes.len() == 16
        && matches!(bytes[10], b' ' | b'T')
        && bytes[13] == b':'
        && digits(11..13)
        && digits(14..16);
    if short {
        *text = format!("{}:00", text.trim());
    }
}

fn is_long(value: &Value) -> bool {
    let Value::Number(number, _) = value else { return false };
    number.bytes().all(|digit| digit.is_ascii_digit()) && number.len() <= 38 && number.parse::<i64>().is_err()
}

pub(super) fn name_of(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(sql::fold).unwrap_or_default()
}

/// The arguments of a call; None where some have names or are no values.
pub(super) fn arguments(function: &Function) -> Option<Vec<Expr>> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let plain = |a: &FunctionArg| match a {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
        _ => None,
    };
    list.args.iter().map(plain).collect()
}

pub(super) fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Function(call_of(name, arguments))
}

pub(super) fn call_of(name: &str, arguments: Vec<Expr>) -> Function {
    let args = arguments.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
    Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        ..empty_call()
    }
}

pub(super) fn one_argument(argument: Expr) -> FunctionArgumentList {
    FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))],
        clauses: Vec::new(),
    }
}

pub(super) fn empty_call() -> Function {
    Function {
        name: ObjectName::from(Vec::<Ident>::new()),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::None,
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}
