//! DataFusion's errors about functions, operators and casts, in PostgreSQL's words.
//!
//! Invariant: an error that is not known here keeps its own words. DataFusion tells these apart by text alone, with
//! Arrow's names of types in it, so they are read out of it.
//! Source: PostgreSQL, parse_func.c, parse_oper.c and the input functions of types.

use datafusion::arrow::datatypes::DataType;

use super::types::type_name;

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Worded {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

const CASTS: &str = "You might need to add explicit type casts.";
const OPERATORS: [&str; 22] = [
    "IS NOT DISTINCT FROM",
    "IS DISTINCT FROM",
    "!~~*",
    "!~~",
    "~~*",
    "~~",
    "!~*",
    "!~",
    "~*",
    "<=",
    ">=",
    "!=",
    "<>",
    "||",
    "=",
    "<",
    ">",
    "+",
    "-",
    "*",
    "/",
    "%",
];

/// An error of the planner or of a row's evaluation.
pub(super) fn worded(text: &str) -> Option<Worded> {
    no_function(text)
        .or_else(|| unknown_function(text))
        .or_else(|| no_signature(text))
        .or_else(|| no_operator(text))
        .or_else(|| no_value(text))
        .or_else(|| no_cast(text))
        .or_else(|| no_pattern(text))
}

/// `… No function matches the given name and argument types 'f(Int64, Utf8)'.`
fn no_function(text: &str) -> Option<Worded> {
    let call = between(text, "No function matches the given name and argument types '", "'")?;
    let (name, arguments) = call.split_once('(')?;
    let types: Vec<String> = arguments_of(arguments.strip_suffix(')')?).iter().map(|t| name_of(t)).collect();
    let message = format!("function {name}({}) does not exist", types.join(", "));
    let hint = format!("No function matches the given name and argument types. {CASTS}");
    Some(Worded { code: "42883", message, hint: Some(hint) })
}

/// `Invalid function 'f'.`, with the name of another one behind it or not.
fn unknown_function(text: &str) -> Option<Worded> {
    let name = between(text, "Invalid function '", "'")?;
    let hint = between(text, "Did you mean '", "'").map(|other| format!("Perhaps you meant \"{other}\"."));
    Some(Worded { code: "42883", message: format!("function {name} does not exist"), hint })
}

/// `Function 'f' failed to match any signature, errors: …`
fn no_signature(text: &str) -> Option<Worded> {
    let name = between(text, "Function '", "' failed to match any signature")?;
    let message = format!("function {name} does not exist for these arguments");
    Some(Worded { code: "42883", message, hint: Some(CASTS.to_owned()) })
}

/// `Cannot infer common argument type for comparison operation A = B` and what is said of arithmetic.
fn no_operator(text: &str) -> Option<Worded> {
    let pair = between(text, "Cannot infer common argument type for comparison operation ", "\n")
        .or_else(|| between(text, "Cannot coerce arithmetic expression ", " to valid types"))?;
    let (left, operator, right) = OPERATORS.iter().find_map(|operator| {
        let (left, right) = pair.split_once(&format!(" {operator} "))?;
        Some((left, operator, right))
    })?;
    Some(unknown_operator(&name_of(left), operator, &name_of(right)))
}

/// An operator that is not there for values of these types.
pub(super) fn unknown_operator(left: &str, operator: &str, right: &str) -> Worded {
    let message = format!("operator does not exist: {left} {operator} {right}");
    let hint = format!("No operator matches the given name and argument types. {CASTS}");
    Worded { code: "42883", message, hint: Some(hint) }
}

/// `Cannot cast string 'x' to value of Int32 type`
fn no_value(text: &str) -> Option<Worded> {
    let rest = text.split_once("Cannot cast string '")?.1;
    // The text itself may have quotes in it.
    let (value, rest) = rest.rsplit_once("' to value of ")?;
    let data_type = rest.split(" type").next()?;
    let is_time = ["Date", "Time", "Interval"].iter().any(|time| data_type.starts_with(time));
    let code = if is_time { "22007" } else { "22P02" };
    let message = format!("invalid input syntax for type {}: \"{value}\"", name_of(data_type));
    Some(Worded { code, message, hint: None })
}

/// `Unsupported CAST from A to B`
fn no_cast(text: &str) -> Option<Worded> {
    let (from, to) = between(text, "Unsupported CAST from ", "\n")?.split_once(" to ")?;
    let message = format!("cannot cast type {} to {}", name_of(from), name_of(to));
    Some(Worded { code: "42846", message, hint: None })
}

/// `… regex parse error:`, the pattern with a mark below it, and `error: …`
fn no_pattern(text: &str) -> Option<Worded> {
    let (_, rest) = text.split_once("regex parse error:")?;
    let why =
        rest.lines().find_map(|line| line.trim_start().strip_prefix("error: ")).unwrap_or("it is not one");
    Some(Worded { code: "2201B", message: format!("invalid regular expression: {why}"), hint: None })
}

/// What stands between two marks; the text's end is the second one too, where that is the end of a line.
fn between<'a>(text: &'a str, first: &str, second: &str) -> Option<&'a str> {
    let rest = text.split_once(first)?.1;
    match rest.split_once(second) {
        Some((found, _)) => Some(found),
        None => (second == "\n").then_some(rest),
    }
}

/// Cut at commas that are in no brackets.
fn arguments_of(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut out) = (0usize, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                out.push(list[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    let last = list[from..].trim();
    if !last.is_empty() {
        out.push(last);
    }
    out
}

/// PostgreSQL's name of a type by Arrow's.
fn name_of(text: &str) -> String {
    let text = text.trim();
    if let Some(item) = between(text, "List(", "\n") {
        let item = item.strip_suffix(')').unwrap_or(item);
        let item = item.strip_prefix("non-null ").unwrap_or(item);
        return format!("{}[]", name_of(item.split(", ").next().unwrap_or(item)));
    }
    match text.parse::<DataType>() {
        Ok(DataType::Null) => "unknown".to_owned(),
        Ok(data_type) => type_name(&data_type),
        Err(_) if text.starts_with("Struct(") => "record".to_owned(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_in_postgres_words() {
        let message = |text: &str| worded(text).map(|worded| worded.message);
        let all = [
            (
                "Function 'abs' expects Numeric but received String. No function matches the given name and \
                 argument types 'abs(Utf8, Decimal128(10, 2))'. You might need to add explicit type casts",
                "function abs(text, numeric(10,2)) does not exist",
            ),
            ("Invalid function 'flor'.\nDid you mean 'floor'?", "function flor does not exist"),
            (
                "Function 'substr' failed to match any signature, errors: Error during planning: …",
                "function substr does not exist for these arguments",
            ),
            (
                "Cannot infer common argument type for comparison operation Int64 > Timestamp(µs)",
                "operator does not exist: bigint > timestamp without time zone",
            ),
            (
                "Cannot coerce arithmetic expression List(Utf8) - Int64 to valid types",
                "operator does not exist: text[] - bigint",
            ),
            (
                "Cannot cast string 'it's' to value of Date32 type",
                "invalid input syntax for type date: \"it's\"",
            ),
            ("Unsupported CAST from Boolean to Date32", "cannot cast type boolean to date"),
            (
                "External error: regex parse error:\n    a[b-a]\n      ^^^\nerror: invalid range",
                "invalid regular expression: invalid range",
            ),
        ];
        for (text, expected) in all {
            assert_eq!(message(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(worded("column \"x\" does not exist"), None);
        let hint = worded("Invalid function 'flor'.\nDid you mean 'floor'?").and_then(|worded| worded.hint);
        assert_eq!(hint.as_deref(), Some("Perhaps you meant \"floor\"."));
    }
}
