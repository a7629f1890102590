//! PostgreSQL's spellings that DataFusion reads otherwise, put into words it has.

use sql::sqlparser::ast::{
    AccessExpr, Array, BinaryOperator, DataType, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    OrderByExpr, OrderByOptions, Query, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    TableFunctionArgs, TimezoneInfo, UnaryOperator, Value,
};

use super::{ksql, own};

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
            if let Value::Number(number, _) = &value.value {
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
        // A text where a place should be is a pattern.
        Expr::Substring { expr: text, substring_from: Some(from), substring_for: None, .. } => {
            if let Expr::Value(pattern) = from.as_ref()
                && matches!(pattern.value, Value::SingleQuotedString(_))
            {
                *expr = call("substring_pattern", vec![text.as_ref().clone(), from.as_ref().clone()]);
            }
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
            rename(function);
            let rewritten = discrete_percentile(function).or_else(|| json_aggregate(function));
            if let Some(value) = rewritten.or_else(|| ksql::rewritten(function)) {
                *expr = value;
            }
        }
        _ => {}
    }
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

/// json_agg and json_object_agg: the JSON of an array of what is aggregated.
fn json_aggregate(function: &Function) -> Option<Expr> {
    let (json, members) = match name_of(&function.name).as_str() {
        "json_agg" => ("json_of_elements", false),
        "jsonb_agg" => ("jsonb_of_elements", false),
        "json_object_agg" => ("json_of_members", true),
        "jsonb_object_agg" => ("jsonb_of_members", true),
        _ => return None,
    };
    let mut aggregate = function.clone();
    aggregate.name = ObjectName::from(vec![Ident::new("array_agg")]);
    if members {
        let FunctionArguments::List(list) = &mut aggregate.args else { return None };
        let arguments = std::mem::take(&mut list.args);
        let member: Vec<Expr> = arguments
            .into_iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect::<Option<_>>()?;
        list.args = one_argument(call("struct", member)).args;
    }
    Some(call(json, vec![Expr::Function(aggregate)]))
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

/// percentile_disc(f) WITHIN GROUP (ORDER BY v): the element of the sorted values at f of their number.
fn discrete_percentile(function: &Function) -> Option<Expr> {
    let (FunctionArguments::List(list), [order]) = (&function.args, function.within_group.as_slice()) else {
        return None;
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(fraction))] = list.args.as_slice() else { return None };
    if name_of(&function.name) != "percentile_disc" {
        return None;
    }
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

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// `'{1,2}'` as `ARRAY[1,2]`, of numbers where all are and they may be; only for elements without commas and
/// braces inside.
fn array_literal(expr: &Expr, numbers: bool) -> Option<Expr> {
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

/// Functions in a select list that give several rows: their lists, expanded.
pub(super) fn select_item(item: &mut SelectItem) {
    if let SelectItem::UnnamedExpr(expr) = item
        && let Expr::Function(function) = expr
        && as_list(function).is_some()
    {
        let alias = Ident::new(name_of(&function.name));
        *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
    }
    let expand = |expr: &mut Expr| {
        if let Expr::Function(function) = expr
            && let Some(list) = as_list(function)
        {
            *expr = call("unnest", vec![list]);
        }
    };
    own::each(item, |_| (), expand);
}

fn is_long(value: &Value) -> bool {
    let Value::Number(number, _) = value else { return false };
    number.bytes().all(|digit| digit.is_ascii_digit()) && number.len() <= 38 && number.parse::<i64>().is_err()
}

/// A function in FROM that gives several rows.
pub(super) fn table_factor(factor: &mut TableFactor) {
    match factor {
        TableFactor::Table { name, args: Some(arguments), alias, with_ordinality, .. } => {
            let numbered = *with_ordinality;
            let function = Function {
                name: name.clone(),
                args: FunctionArguments::List(FunctionArgumentList {
                    duplicate_treatment: None,
                    args: arguments.args.clone(),
                    clauses: Vec::new(),
                }),
                ..empty_call()
            };
            let default = name_of(name);
            // A series of numbers is generated row by row, not as one list.
            if matches!(default.as_str(), "generate_series" | "range")
                && arguments.args.iter().all(is_number)
                && !numbered
            {
                *alias = named(alias.clone(), &default, 1);
                return;
            }
            if default == "unnest" {
                let lists = arguments.args.iter().map(|argument| match argument {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(list)) => Some(list.clone()),
                    _ => None,
                });
                if let Some(lists) = lists.collect() {
                    *factor = unnest(lists, alias.clone(), &default, numbered);
                }
                return;
            }
            let Some(list) = as_list(&function) else { return };
            *factor = unnest(vec![list], alias.clone(), &default, numbered);
        }
        // LATERAL goes without saying.
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            let args = TableFunctionArgs { args: args.clone(), settings: None };
            let (mut function, numbered) = (table(name.clone(), alias.clone(), Some(args)), *with_ordinality);
            if let TableFactor::Table { with_ordinality, .. } = &mut function {
                *with_ordinality = numbered;
            }
            *factor = function;
            table_factor(factor);
        }
        TableFactor::UNNEST { alias, array_exprs, with_offset: false, with_ordinality, .. } => {
            *factor = unnest(std::mem::take(array_exprs), alias.take(), "unnest", *with_ordinality);
        }
        _ => {}
    }
}

/// A table, or with arguments a function, and nothing said of it besides.
pub(super) fn table(
    name: ObjectName,
    alias: Option<TableAlias>,
    args: Option<TableFunctionArgs>,
) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    }
}

fn is_number(argument: &FunctionArg) -> bool {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::UnaryOp { expr, .. })) => {
            matches!(expr.as_ref(), Expr::Value(value) if matches!(value.value, Value::Number(..)))
        }
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => {
            matches!(value.value, Value::Number(..))
        }
        _ => false,
    }
}

/// Whether a function in a select list gives several rows.
pub(super) fn gives_rows(function: &Function) -> bool {
    name_of(&function.name) == "unnest" || as_list(function).is_some()
}

/// The expression whose elements are the rows of a function; None for another function.
fn as_list(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let arguments = list
        .args
        .iter()
        .map(|a| match a {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    match (name_of(&function.name).as_str(), arguments.as_slice()) {
        (name @ ("generate_series" | "range"), _) => Some(call(name, arguments)),
        ("regexp_matches", [text, pattern, rest @ ..]) => {
            let flags = match rest {
                [Expr::Value(flags)] => flags.value.to_string().trim_matches('\'').to_owned(),
                _ => String::new(),
            };
            let flags = Expr::value(Value::SingleQuotedString(flags));
            Some(call("regexp_match_list", vec![text.clone(), pattern.clone(), flags]))
        }
        ("regexp_split_to_table", _) => Some(call("regexp_split_to_array", arguments)),
        ("string_to_table", _) => Some(call("string_to_array", arguments)),
        ("generate_subscripts", [array, dimension]) => {
            let one = Expr::value(Value::Number("1".into(), false));
            Some(call(
                "generate_series",
                vec![one, call("array_length", vec![array.clone(), dimension.clone()])],
            ))
        }
        _ => None,
    }
}

/// The elements of lists side by side; WITH ORDINALITY their numbers are behind them.
fn unnest(
    mut array_exprs: Vec<Expr>,
    alias: Option<TableAlias>,
    default: &str,
    with_ordinality: bool,
) -> TableFactor {
    let mut alias = named(alias, default, array_exprs.len());
    if with_ordinality {
        let number = |n: &str| Expr::value(Value::Number(n.into(), false));
        let length =
            |list: &Expr| call("coalesce", vec![call("array_length", vec![list.clone()]), number("0")]);
        let longest =
            sql::cast_to(call("greatest", array_exprs.iter().map(length).collect()), DataType::BigInt(None));
        let columns = array_exprs.len();
        array_exprs.push(call("generate_series", vec![number("1"), longest]));
        if let Some(alias) = alias.as_mut().filter(|alias| alias.columns.len() == columns) {
            alias.columns.push(TableAliasColumnDef { name: Ident::new("ordinality"), data_type: None });
        }
    }
    TableFactor::UNNEST {
        alias,
        array_exprs,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    }
}

/// The alias with a name for the column: a function's only column is called like the function's alias.
fn named(alias: Option<TableAlias>, default: &str, columns: usize) -> Option<TableAlias> {
    let mut alias = alias.unwrap_or_else(|| TableAlias {
        explicit: false,
        name: Ident::new(default),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() && columns == 1 {
        alias.columns.push(TableAliasColumnDef { name: alias.name.clone(), data_type: None });
    }
    Some(alias)
}

pub(super) fn name_of(name: &ObjectName) -> String {
    name.0.last().and_then(|part| part.as_ident()).map(sql::fold).unwrap_or_default()
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

fn one_argument(argument: Expr) -> FunctionArgumentList {
    FunctionArgumentList {
        duplicate_treatment: None,
        args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))],
        clauses: Vec::new(),
    }
}

fn empty_call() -> Function {
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
