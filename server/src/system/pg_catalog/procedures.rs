//! Functions as pg_proc shows them: DataFusion's and our own, with the types of one of their forms.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

use datafusion::arrow::datatypes::DataType;
use datafusion::logical_expr::TypeSignature;

use super::{OWNER, PG_CATALOG};
use crate::pg::pg_type;
use crate::system::table::{Cell, Row};

/// Where functions are numbered from.
const FIRST: i64 = 5_000;
const ANY: i64 = 2276;
const INTERNAL: i64 = 12;
const SQL: i64 = 14;

struct Procedure {
    name: String,
    /// `f`, `a` for an aggregate, `w` for a window function.
    kind: &'static str,
    arguments: Vec<i64>,
    result: i64,
}

static PROCEDURES: LazyLock<Vec<Procedure>> = LazyLock::new(|| {
    let state = planner::session_state(1);
    let mut all: Vec<Procedure> = Vec::new();
    for (name, function) in state.scalar_functions() {
        let signature = &function.signature().type_signature;
        let arguments = example(signature);
        let result = result(signature, &arguments, || function.return_type(&arguments).ok());
        all.push(procedure(name, "f", &arguments, result));
    }
    for (name, function) in state.aggregate_functions() {
        let signature = &function.signature().type_signature;
        let arguments = example(signature);
        let result = result(signature, &arguments, || function.return_type(&arguments).ok());
        let arguments = if name == "count" { Vec::new() } else { arguments };
        all.push(procedure(name, "a", &arguments, result.or((name == "count").then_some(DataType::Int64))));
    }
    for (name, function) in state.window_functions() {
        all.push(procedure(name, "w", &example(&function.signature().type_signature), None));
    }
    // Casts are functions too.
    for (name, data_type) in [
        ("int2", DataType::Int16),
        ("int4", DataType::Int32),
        ("int8", DataType::Int64),
        ("float4", DataType::Float32),
        ("float8", DataType::Float64),
        ("numeric", DataType::Decimal128(38, 10)),
        ("text", DataType::Utf8),
        ("bool", DataType::Boolean),
    ] {
        all.push(procedure(name, "f", &[DataType::Utf8], Some(data_type)));
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all.dedup_by(|a, b| a.name == b.name);
    all
});

/// The type of a function's result. Functions of arrays, whose arguments nobody can say, look at them
/// without asking whether they are there.
fn result(
    signature: &TypeSignature,
    arguments: &[DataType],
    of_function: impl FnOnce() -> Option<DataType>,
) -> Option<DataType> {
    let known = !arguments.is_empty() || matches!(signature, TypeSignature::Nullary);
    if !known {
        return None;
    }
    catch_unwind(AssertUnwindSafe(of_function)).ok().flatten()
}

/// Types that a function takes, the shortest form first.
fn example(signature: &TypeSignature) -> Vec<DataType> {
    let mut examples = signature.get_example_types();
    // Of several forms the one with plain text.
    let views = |types: &Vec<DataType>| types.iter().filter(|t| **t != DataType::Utf8).count();
    examples.sort_by_key(|types| (types.len(), views(types)));
    examples.into_iter().next().unwrap_or_default()
}

fn procedure(name: &str, kind: &'static str, arguments: &[DataType], result: Option<DataType>) -> Procedure {
    let oid = |data_type: &DataType| i64::from(pg_type(data_type).oid);
    let any = if kind == "a" && arguments.is_empty() { vec![ANY] } else { Vec::new() };
    let arguments = if any.is_empty() { arguments.iter().map(oid).collect() } else { any };
    Procedure { name: name.to_owned(), kind, arguments, result: result.as_ref().map_or(25, oid) }
}

/// The id of a function; what stands in parentheses behind its name is not looked at.
pub(in super::super) fn oid_of(name: &str) -> Option<i64> {
    let name = name.split('(').next().unwrap_or_default();
    let at = PROCEDURES.iter().position(|p| p.name == name)?;
    Some(FIRST + i64::try_from(at).ok()?)
}

pub(super) fn procedures() -> Vec<Row> {
    let row = |(oid, p): (i64, &Procedure)| -> Row {
        vec![
            ("oid", oid.into()),
            ("proname", p.name.clone().into()),
            ("pronamespace", PG_CATALOG.into()),
            ("proowner", OWNER.into()),
            ("prolang", INTERNAL.into()),
            ("procost", 1.into()),
            ("prokind", p.kind.into()),
            ("provolatile", "i".into()),
            ("proparallel", "s".into()),
            ("proisstrict", true.into()),
            ("pronargs", Cell::Number(i64::try_from(p.arguments.len()).unwrap_or(0))),
            ("prorettype", p.result.into()),
            ("proargtypes", Cell::Numbers(p.arguments.clone())),
            ("prosrc", p.name.clone().into()),
            ("prosupport", "-".into()),
        ]
    };
    (FIRST..).zip(PROCEDURES.iter()).map(row).collect()
}

pub(super) fn aggregates() -> Vec<Row> {
    let all = (FIRST..).zip(PROCEDURES.iter()).filter(|(_, p)| p.kind == "a");
    let row = |(oid, _): (i64, &Procedure)| -> Row {
        vec![("aggfnoid", oid.into()), ("aggkind", "n".into()), ("aggtransfn", "-".into())]
    };
    all.map(row).collect()
}

pub(super) fn languages() -> Vec<Row> {
    let row = |(oid, name): (i64, &str)| -> Row {
        vec![
            ("oid", oid.into()),
            ("lanname", name.into()),
            ("lanowner", OWNER.into()),
            ("lanpltrusted", (name == "sql").into()),
        ]
    };
    [(INTERNAL, "internal"), (SQL, "sql")].map(row).into()
}

/// What is said of objects: of the languages.
pub(super) fn descriptions() -> Vec<Row> {
    let row = |(oid, text): (i64, &str)| -> Row {
        vec![("objoid", oid.into()), ("classoid", 2612.into()), ("description", text.into())]
    };
    [(INTERNAL, "built-in functions"), (SQL, "SQL-language functions")].map(row).into()
}

/// Result and arguments of a function as text.
pub(in super::super) fn signature(oid: i64) -> Option<(String, String)> {
    let p = PROCEDURES.get(usize::try_from(oid - FIRST).ok()?)?;
    let name = |oid: &i64| match *oid {
        ANY => "\"any\"".to_owned(),
        other => crate::pg::base_name(u32::try_from(other).unwrap_or(0)).to_owned(),
    };
    Some((name(&p.result), p.arguments.iter().map(name).collect::<Vec<_>>().join(", ")))
}

/// CREATE FUNCTION for a function.
pub(in super::super) fn source(oid: i64) -> Option<String> {
    let p = PROCEDURES.get(usize::try_from(oid - FIRST).ok()?)?;
    let (result, arguments) = signature(oid)?;
    let name = &p.name;
    Some(format!(
        "CREATE OR REPLACE FUNCTION pg_catalog.{name}({arguments})\n RETURNS {result}\n LANGUAGE internal\n \
         IMMUTABLE PARALLEL SAFE STRICT\nAS $function${name}$function$\n"
    ))
}
