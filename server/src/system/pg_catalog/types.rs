//! Types, and the casts and operators between them.
//!
//! `types.txt`, `casts.txt` and `operators.txt` are what PostgreSQL 15 says of the types that are known here.

use std::sync::LazyLock;

use super::procedures;
use super::{BTREE, OWNER, PG_CATALOG};
use crate::system::table::{Cell, Row};

/// A line of `types.txt`.
struct Type {
    fields: Vec<&'static str>,
}

const COLUMNS: [&str; 18] = [
    "oid",
    "typname",
    "typlen",
    "typtype",
    "typcategory",
    "typelem",
    "typarray",
    "typbyval",
    "typisdefined",
    "typdelim",
    "typalign",
    "typstorage",
    "typispreferred",
    "typcollation",
    "typinput",
    "typoutput",
    "typreceive",
    "typsend",
];

static TYPES: LazyLock<Vec<Type>> = LazyLock::new(|| {
    include_str!("types.txt").lines().map(|line| Type { fields: line.split('|').collect() }).collect()
});

impl Type {
    fn oid(&self) -> i64 {
        self.fields.first().and_then(|oid| oid.parse().ok()).unwrap_or(0)
    }

    fn name(&self) -> &'static str {
        self.fields.get(1).copied().unwrap_or_default()
    }
}

/// The id of a type, by its own name or as SQL calls it; arrays too.
pub(super) fn oid_of(name: &str) -> Option<i64> {
    let name = name.trim().to_lowercase();
    if let Some(element) = name.strip_suffix("[]") {
        let element = oid_of(element)?;
        let array = TYPES.iter().find(|t| t.oid() == element)?.fields.get(6)?.parse().ok();
        return array.filter(|oid| *oid != 0);
    }
    let internal = match name.split('(').next().unwrap_or_default().trim() {
        "bigint" => "int8",
        "integer" | "int" => "int4",
        "smallint" => "int2",
        "boolean" => "bool",
        "real" => "float4",
        "double precision" => "float8",
        "decimal" => "numeric",
        "character varying" => "varchar",
        "character" => "bpchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        other => other,
    };
    TYPES.iter().find(|t| t.name() == internal).map(Type::oid)
}

/// The internal name of a type.
pub(super) fn name_of(oid: i64) -> &'static str {
    TYPES.iter().find(|t| t.oid() == oid).map_or("text", Type::name)
}

pub(super) fn types() -> Vec<Row> {
    let row = |t: &Type| -> Row {
        let mut row: Row = COLUMNS
            .iter()
            .zip(&t.fields)
            .map(|(column, field)| {
                let flag = matches!(*column, "typbyval" | "typisdefined" | "typispreferred");
                let text = matches!(
                    *column,
                    "typname"
                        | "typtype"
                        | "typcategory"
                        | "typdelim"
                        | "typalign"
                        | "typstorage"
                        | "typinput"
                        | "typoutput"
                        | "typreceive"
                        | "typsend"
                );
                let cell = match field.parse::<i64>() {
                    _ if flag => Cell::Bool(*field == "t"),
                    Ok(number) if !text => Cell::Number(number),
                    _ => (*field).into(),
                };
                (*column, cell)
            })
            .collect();
        row.extend([
            ("typnamespace", PG_CATALOG.into()),
            ("typowner", OWNER.into()),
            ("typtypmod", (-1).into()),
            ("typsubscript", "-".into()),
            ("typmodin", "-".into()),
            ("typmodout", "-".into()),
            ("typanalyze", "-".into()),
        ]);
        row
    };
    TYPES.iter().map(row).collect()
}

fn lines(text: &'static str) -> impl Iterator<Item = (i64, Vec<&'static str>)> {
    (1i64..).zip(text.lines().map(|line| line.split(' ').collect()))
}

/// Casts that SQL can ask for.
pub(super) fn casts() -> Vec<Row> {
    let row = |(number, fields): (i64, Vec<&str>)| -> Option<Row> {
        let [source, target, function, context, method] = fields.as_slice() else { return None };
        Some(vec![
            ("oid", (11_000 + number).into()),
            ("castsource", oid_of(source)?.into()),
            ("casttarget", oid_of(target)?.into()),
            ("castfunc", procedures::oid_of(function).unwrap_or(0).into()),
            ("castcontext", (*context).into()),
            ("castmethod", (*method).into()),
        ])
    };
    lines(include_str!("casts.txt")).filter_map(row).collect()
}

pub(super) fn operators() -> Vec<Row> {
    let row = |(number, fields): (i64, Vec<&str>)| -> Option<Row> {
        let [name, left, right, result] = fields.as_slice() else { return None };
        let side = |name: &str| oid_of(name).unwrap_or(0);
        Some(vec![
            ("oid", (12_000 + number).into()),
            ("oprname", (*name).into()),
            ("oprnamespace", PG_CATALOG.into()),
            ("oprowner", OWNER.into()),
            ("oprkind", if *left == "-" { "l" } else { "b" }.into()),
            ("oprleft", side(left).into()),
            ("oprright", side(right).into()),
            ("oprresult", oid_of(result)?.into()),
            ("oprcode", "-".into()),
            ("oprrest", "-".into()),
            ("oprjoin", "-".into()),
        ])
    };
    lines(include_str!("operators.txt")).filter_map(row).collect()
}

/// Types whose values can be keys.
const ORDERED: [&str; 16] = [
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "text",
    "date",
    "timestamp",
    "timestamptz",
    "time",
    "interval",
    "bytea",
    "oid",
    "uuid",
];

/// The class that orders keys of a type, by their ids; that of text for all that are written as texts.
pub(super) fn operator_class(type_oid: i64) -> i64 {
    let of = |name: &str| ORDERED.iter().position(|known| *known == name);
    let known = ORDERED.iter().position(|name| oid_of(name) == Some(type_oid));
    let place = known.or_else(|| of("text")).and_then(|place| i64::try_from(place).ok());
    13_101 + place.unwrap_or(0)
}

/// How keys are ordered: one class for each type, in a family of its own.
pub(super) fn operator_classes(name: &str) -> Vec<Row> {
    let row = |(number, of): (i64, &str)| -> Row {
        let type_oid = oid_of(of).unwrap_or(0);
        match name {
            "pg_opclass" => vec![
                ("oid", (13_100 + number).into()),
                ("opcmethod", BTREE.into()),
                ("opcname", format!("{of}_ops").into()),
                ("opcnamespace", PG_CATALOG.into()),
                ("opcowner", OWNER.into()),
                ("opcfamily", (13_200 + number).into()),
                ("opcintype", type_oid.into()),
                ("opcdefault", true.into()),
            ],
            _ => vec![
                ("oid", (13_200 + number).into()),
                ("opfmethod", BTREE.into()),
                ("opfname", format!("{of}_ops").into()),
                ("opfnamespace", PG_CATALOG.into()),
                ("opfowner", OWNER.into()),
            ],
        }
    };
    (1i64..).zip(ORDERED).map(row).collect()
}
