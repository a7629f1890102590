//! `information_schema`: the catalog as the SQL standard shows it.

use datafusion::arrow::array::RecordBatch;
use planner::{Relation, RelationKind};

use super::definitions::{Definition, definition};
use super::objects::{has_key, oid};
use super::{NAMESPACES, shapes, types};
use crate::pg::column_type;
use crate::system::SystemRelations;
use crate::system::table::{Cell, Row};

const DATABASE: &str = "millpond";

/// A relation of `information_schema`.
pub(in super::super) fn information_schema(system: &SystemRelations, name: &str) -> Option<RecordBatch> {
    let relations: Vec<&Relation> = system.snapshot.catalog.visible().map(AsRef::as_ref).collect();
    let keyed = || relations.iter().copied().filter(|r| has_key(r));
    let rows: Vec<Row> = match name {
        "schemata" => NAMESPACES.iter().map(|(_, name)| schema(name)).collect(),
        "tables" => {
            relations.iter().filter(|r| r.kind != RelationKind::MaterializedView).map(|r| table(r)).collect()
        }
        "columns" => relations.iter().flat_map(|r| columns(r)).collect(),
        "views" => {
            let views = relations.iter().filter(|r| r.kind == RelationKind::View);
            let text = |r: &Relation| definition(&system.snapshot.catalog, Definition::View, oid(r));
            views.map(|r| named(r, [("view_definition", text(r).into())])).collect()
        }
        "table_constraints" => keyed()
            .map(|r| {
                let mut row = named(r, [("constraint_type", "PRIMARY KEY".into())]);
                row.extend(constraint(r));
                row.extend([
                    ("is_deferrable", "NO".into()),
                    ("initially_deferred", "NO".into()),
                    ("enforced", "YES".into()),
                ]);
                row
            })
            .collect(),
        "key_column_usage" | "constraint_column_usage" => keyed().flat_map(key_columns).collect(),
        "table_privileges" | "role_table_grants" => {
            let privileges = ["SELECT", "INSERT", "UPDATE", "DELETE"];
            let row = |r: &Relation, privilege: &str| -> Row {
                let grant = [
                    ("grantor", DATABASE.into()),
                    ("grantee", DATABASE.into()),
                    ("privilege_type", privilege.into()),
                    ("is_grantable", "YES".into()),
                ];
                named(r, grant)
            };
            relations.iter().flat_map(|r| privileges.map(|privilege| row(r, privilege))).collect()
        }
        "enabled_roles" => vec![vec![("role_name", DATABASE.into())]],
        "character_sets" => vec![vec![("character_set_name", "UTF8".into())]],
        _ => Vec::new(),
    };
    shapes::find(&format!("information_schema.{name}"))?.table(rows)
}

fn schema(name: &str) -> Row {
    vec![("catalog_name", DATABASE.into()), ("schema_name", name.into()), ("schema_owner", DATABASE.into())]
}

/// What is said of a relation, with its name.
fn named<const N: usize>(relation: &Relation, more: [(&'static str, Cell); N]) -> Row {
    let mut row: Row = vec![
        ("table_catalog", DATABASE.into()),
        ("table_schema", "public".into()),
        ("table_name", relation.name.clone().into()),
    ];
    row.extend(more);
    row
}

fn constraint(relation: &Relation) -> Row {
    vec![
        ("constraint_catalog", DATABASE.into()),
        ("constraint_schema", "public".into()),
        ("constraint_name", format!("{}_pkey", relation.name).into()),
    ]
}

fn table(relation: &Relation) -> Row {
    let kind = if relation.kind == RelationKind::View { "VIEW" } else { "BASE TABLE" };
    let writable = if relation.is_writable() { "YES" } else { "NO" };
    named(relation, [("table_type", kind.into()), ("is_insertable_into", writable.into())])
}

fn key_columns(relation: &Relation) -> Vec<Row> {
    let column = |(position, key): (i64, &usize)| -> Row {
        let name = relation.columns[*key].name.clone();
        let mut row = named(relation, [("column_name", name.into()), ("ordinal_position", position.into())]);
        row.extend(constraint(relation));
        row
    };
    (1i64..).zip(&relation.key).map(column).collect()
}

fn columns(relation: &Relation) -> Vec<Row> {
    let column = |(position, column): (i64, &planner::Column)| -> Row {
        let pg = column_type(&column.field());
        let digits = i64::from(pg.modifier - 4);
        let (precision, scale, radix) = match pg.oid {
            21 => (Some(16), Some(0), Some(2)),
            23 => (Some(32), Some(0), Some(2)),
            20 => (Some(64), Some(0), Some(2)),
            700 => (Some(24), None, Some(2)),
            701 => (Some(53), None, Some(2)),
            1700 if pg.modifier > 0 => (Some(digits >> 16), Some(digits & 0xffff), Some(10)),
            _ => (None, None, None),
        };
        let name = pg.name();
        let shown = if name.ends_with("[]") { "ARRAY".to_owned() } else { name };
        let most = (pg.oid == 1043 && pg.modifier > 0).then_some(digits);
        let shown = shown.split('(').next().unwrap_or_default().to_owned();
        named(
            relation,
            [
                ("column_name", column.name.clone().into()),
                ("ordinal_position", position.into()),
                ("column_default", column.default.clone().into()),
                ("is_nullable", if column.not_null { "NO" } else { "YES" }.into()),
                ("data_type", shown.into()),
                ("character_maximum_length", most.into()),
                ("numeric_precision", precision.into()),
                ("numeric_scale", scale.into()),
                ("numeric_precision_radix", radix.into()),
                ("datetime_precision", matches!(pg.oid, 1083 | 1114 | 1184).then_some(6i64).into()),
                ("udt_catalog", DATABASE.into()),
                ("udt_schema", "pg_catalog".into()),
                ("udt_name", types::name_of(i64::from(pg.oid)).into()),
                ("is_identity", "NO".into()),
                ("is_generated", "NEVER".into()),
                ("is_updatable", if relation.is_writable() { "YES" } else { "NO" }.into()),
            ],
        )
    };
    (1i64..).zip(&relation.columns).map(column).collect()
}
