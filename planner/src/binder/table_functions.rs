//! Functions that give several rows, in FROM and in select lists: the elements of lists.
//!
//! Source: PostgreSQL, "Set Returning Functions", "Table Functions".

use sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, SelectItem, TableAlias, TableAliasColumnDef, TableFactor, TableFunctionArgs, Value,
};

use super::own;
use super::spelling::{arguments, call, empty_call, name_of};

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
                if let Some(lists) = self::arguments(&function) {
                    *factor = unnest(lists, alias.clone(), &default, numbered);
                }
                return;
            }
            if let Some(lists) = members(&function) {
                let mut alias = named(alias.clone(), &default, 2);
                if let Some(alias) = alias.as_mut().filter(|alias| alias.columns.is_empty()) {
                    let column = |name| TableAliasColumnDef { name: Ident::new(name), data_type: None };
                    alias.columns = ["key", "value"].map(column).into();
                }
                *factor = unnest(lists, alias, &default, numbered);
                return;
            }
            let Some(list) = as_list(&function) else { return };
            let mut alias = alias.clone();
            // The elements of JSON have a name of their own where the function has no other.
            let elements = default.contains("_array_elements").then(|| Ident::new("value"));
            if let (Some(column), None) = (elements, &alias) {
                let columns = vec![TableAliasColumnDef { name: column, data_type: None }];
                alias = Some(TableAlias { explicit: false, name: Ident::new(&default), columns, at: None });
            }
            *factor = unnest(vec![list], alias, &default, numbered);
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
    let arguments = arguments(function)?;
    match (name_of(&function.name).as_str(), arguments.as_slice()) {
        (name @ ("generate_series" | "range"), _) => Some(call(name, arguments)),
        ("regexp_matches", [text, pattern, rest @ ..]) => {
            let none = Expr::value(Value::SingleQuotedString(String::new()));
            let flags = rest.first().cloned().unwrap_or(none);
            Some(call("regexp_match_list", vec![text.clone(), pattern.clone(), flags]))
        }
        ("regexp_split_to_table", _) => Some(call("regexp_split_to_array", arguments)),
        ("json_array_elements" | "jsonb_array_elements", [json]) => {
            Some(call("json_element_list", vec![json.clone()]))
        }
        ("json_array_elements_text" | "jsonb_array_elements_text", [json]) => {
            Some(call("json_element_texts", vec![json.clone()]))
        }
        ("json_object_keys" | "jsonb_object_keys", [json]) => {
            Some(call("json_member_names", vec![json.clone()]))
        }
        ("aclexplode", [acl]) => Some(call("acl_items", vec![acl.clone()])),
        ("string_to_table", _) => Some(call("string_to_array", arguments)),
        ("generate_subscripts", [array, dimension, rest @ ..]) => {
            let one = Expr::value(Value::Number("1".into(), false));
            let length = call("array_length", vec![array.clone(), dimension.clone()]);
            match rest {
                [] => Some(call("generate_series", vec![one, length])),
                [Expr::Value(back)] if back.value == Value::Boolean(false) => {
                    Some(call("generate_series", vec![one, length]))
                }
                [Expr::Value(back)] if back.value == Value::Boolean(true) => {
                    Some(call("array_reverse", vec![call("generate_series", vec![one, length])]))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// The lists of names and of values that a function takes an object of JSON apart into; None for another function.
fn members(function: &Function) -> Option<Vec<Expr>> {
    let values = match name_of(&function.name).as_str() {
        "json_each" | "jsonb_each" => "json_member_list",
        "json_each_text" | "jsonb_each_text" => "json_member_texts",
        _ => return None,
    };
    let arguments = arguments(function)?;
    let [json] = arguments.as_slice() else { return None };
    Some(vec![call("json_member_names", vec![json.clone()]), call(values, vec![json.clone()])])
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
