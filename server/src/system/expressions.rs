//! Expressions of statements, taken apart and made.

use sql::sqlparser::ast::{
    ArrayElemTypeDef, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, Value,
};

pub(super) fn literal(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

pub(super) fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let mut arguments = Vec::with_capacity(list.args.len());
    for argument in &list.args {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument {
            arguments.push(expr);
        }
    }
    arguments
}

pub(super) fn number(n: i64) -> Expr {
    sql::cast_to(Expr::value(Value::Number(n.to_string(), false)), DataType::BigInt(None))
}

/// The type of lists of elements of a type.
pub(super) fn list_of(element: DataType) -> DataType {
    DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(element), None))
}

/// A text, or NULL.
pub(super) fn text(value: Option<String>) -> Expr {
    value.map_or_else(|| null(DataType::Text), |value| Expr::value(Value::SingleQuotedString(value)))
}

/// The name of a call without its schema, in lower case.
pub(super) fn bare_name(function: &Function) -> String {
    function.name.0.last().map(ToString::to_string).unwrap_or_default().to_lowercase()
}

pub(super) fn null(data_type: DataType) -> Expr {
    sql::cast_to(Expr::value(Value::Null), data_type)
}

/// A call of a function with one argument.
pub(super) fn call(name: &str, argument: Expr) -> Expr {
    calls(name, [argument])
}

/// A call of a function of several arguments.
pub(super) fn calls<const N: usize>(name: &str, arguments: [Expr; N]) -> Expr {
    let args = arguments.map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).to_vec();
    let list = FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() };
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(list),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}
