//! Relations, their columns, keys and defaults as PostgreSQL's catalogs show them.

use datafusion::arrow::datatypes::DataType;
use executor::Snapshot;
use planner::{Catalog, Privilege, Relation, RelationKind, Securable};

use super::definitions::{Definition, definition};
use super::{BTREE, FIRST_OID, HEAP, INDEX_OFFSET, NAMESPACES, PG_CATALOG, PUBLIC, shapes, types};
use crate::pg::column_type;
use crate::system::table::{Cell, Row};

/// Where the rewrite rules of views are numbered from.
const RULE_OFFSET: i64 = 3 * INDEX_OFFSET;
/// The catalogs in which objects are, where others refer to them.
const PG_CLASS: i64 = 1259;
const PG_CONSTRAINT: i64 = 2606;
const PG_REWRITE: i64 = 2618;

/// The relation of an object id.
pub(in super::super) fn relation_id(oid: i64) -> Option<planner::RelationId> {
    u32::try_from(oid - FIRST_OID).ok().filter(|_| oid < FIRST_OID + INDEX_OFFSET)
}

/// What is said of relations and their columns.
pub(super) fn comments(snapshot: &Snapshot) -> Vec<Row> {
    let catalog = &snapshot.catalog;
    let row = |(id, column, text): (planner::RelationId, Option<&str>, &str)| -> Option<Row> {
        let place = match column {
            Some(column) => catalog.by_id(id)?.column(column)? + 1,
            None => 0,
        };
        Some(vec![
            ("objoid", relation_oid(id).into()),
            ("classoid", PG_CLASS.into()),
            ("objsubid", i64::try_from(place).ok()?.into()),
            ("description", text.into()),
        ])
    };
    catalog.comments().iter().filter_map(row).collect()
}

pub(super) fn oid(relation: &Relation) -> i64 {
    relation_oid(relation.id)
}

/// The object id of a relation.
pub(crate) fn relation_oid(id: planner::RelationId) -> i64 {
    FIRST_OID + i64::from(id)
}

pub(super) fn kind(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Stream | RelationKind::Table => "r",
        RelationKind::MaterializedView => "m",
        RelationKind::View => "v",
    }
}

/// Whether the key is one a user declared or a table's query makes unique.
pub(super) fn has_key(relation: &Relation) -> bool {
    relation.kind == RelationKind::Table && !relation.key.is_empty()
}

fn keyed(snapshot: &Snapshot) -> impl Iterator<Item = &Relation> {
    snapshot.catalog.visible().map(AsRef::as_ref).filter(|r: &&Relation| has_key(r))
}

fn key_numbers(relation: &Relation) -> Cell {
    Cell::Numbers(relation.key.iter().filter_map(|k| i64::try_from(k + 1).ok()).collect())
}

/// What is granted on a relation, as PostgreSQL writes it; nothing where nothing ever was.
fn granted(catalog: &Catalog, relation: &Relation) -> Cell {
    let access = catalog.access();
    let owner = access.owner(relation.id);
    let letters = |privileges: &mut dyn Iterator<Item = Privilege>| -> String {
        privileges.map(Privilege::letter).collect()
    };
    let mut items: Vec<String> = access
        .granted(Securable::Relation(relation.id))
        .map(|(to, privileges)| {
            let to = to.as_deref().unwrap_or_default();
            format!("{to}={}/{owner}", letters(&mut privileges.iter().copied()))
        })
        .collect();
    if items.is_empty() {
        return Cell::None;
    }
    let all = letters(&mut Privilege::OF_RELATIONS.into_iter());
    items.insert(0, format!("{owner}={all}/{owner}"));
    Cell::Texts(items)
}

pub(super) fn classes(snapshot: &Snapshot) -> Vec<Row> {
    let class = |oid: i64, name: String, namespace: i64, kind: &str, columns: usize| -> Row {
        let access = match kind {
            "i" => BTREE,
            "v" => 0,
            _ => HEAP,
        };
        vec![
            ("oid", oid.into()),
            ("relname", name.into()),
            ("relnamespace", namespace.into()),
            ("relam", access.into()),
            ("relfilenode", if kind == "v" { 0 } else { oid }.into()),
            ("reltuples", (-1).into()),
            ("relpersistence", "p".into()),
            ("relkind", kind.into()),
            ("relnatts", Cell::Number(i64::try_from(columns).unwrap_or(0))),
            ("relispopulated", true.into()),
            ("relreplident", if kind == "r" { "d" } else { "n" }.into()),
        ]
    };
    let mut rows = Vec::new();
    for relation in snapshot.catalog.visible() {
        let (id, width) = (oid(relation), relation.columns.len());
        let owner = i64::from(snapshot.catalog.access().owner_id(relation.id));
        let mut row = class(id, relation.name.clone(), PUBLIC, kind(relation), width);
        row.push(("relowner", owner.into()));
        row.push(("relacl", granted(&snapshot.catalog, relation)));
        let security = snapshot.catalog.access().row_security(relation.id);
        row.push(("relrowsecurity", security.is_some_and(|security| security.enabled).into()));
        row.push(("relforcerowsecurity", security.is_some_and(|security| security.forced).into()));
        row.push(("relhasindex", has_key(relation).into()));
        row.push(("relhasrules", (kind(relation) == "v").into()));
        rows.push(row);
        if has_key(relation) {
            let name = format!("{}_pkey", relation.name);
            let mut row = class(id + INDEX_OFFSET, name, PUBLIC, "i", relation.key.len());
            row.push(("relowner", owner.into()));
            rows.push(row);
        }
    }
    let system = shapes::all()
        .map(|shape| class(shape.oid, shape.name.to_owned(), PG_CATALOG, shape.kind, shape.columns.len()));
    rows.extend(system);
    rows
}

pub(super) fn attributes(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in snapshot.catalog.visible() {
        let mut columns: Vec<_> = (1i64..).zip(&relation.columns).map(|c| (oid(relation), c)).collect();
        if has_key(relation) {
            let key = relation.key.iter().map(|k| &relation.columns[*k]);
            columns.extend((1i64..).zip(key).map(|c| (oid(relation) + INDEX_OFFSET, c)));
        }
        for (relation_oid, (number, column)) in columns {
            let pg = column_type(&column.field());
            let of_table = relation_oid == oid(relation);
            rows.push(vec![
                ("attrelid", relation_oid.into()),
                ("attname", column.name.clone().into()),
                ("atttypid", i64::from(pg.oid).into()),
                ("attlen", i32::from(pg.size).into()),
                ("attnum", number.into()),
                ("atttypmod", pg.modifier.into()),
                ("attnotnull", (column.not_null && of_table).into()),
                ("atthasdef", (column.default.is_some() && of_table).into()),
                ("attislocal", true.into()),
                ("attstattarget", (-1).into()),
                ("attcacheoff", (-1).into()),
                ("attbyval", (pg.size > 0 && pg.size <= 8).into()),
                ("attstorage", if pg.size < 0 { "x" } else { "p" }.into()),
                ("attalign", "i".into()),
                ("attndims", i32::from(matches!(column.data_type, DataType::List(_))).into()),
            ]);
        }
    }
    rows
}

pub(super) fn defaults(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for relation in snapshot.catalog.visible() {
        for (number, column) in (1i64..).zip(&relation.columns).filter(|(_, c)| c.default.is_some()) {
            rows.push(vec![
                ("oid", (oid(relation) * 2000 + number).into()),
                ("adrelid", oid(relation).into()),
                ("adnum", number.into()),
                ("adbin", column.default.clone().into()),
            ]);
        }
    }
    rows
}

pub(super) fn indexes(snapshot: &Snapshot) -> Vec<Row> {
    let index = |r: &Relation| -> Row {
        let n = Cell::Number(i64::try_from(r.key.len()).unwrap_or(0));
        let zeros = || Cell::Numbers(vec![0; r.key.len()]);
        let type_of = |k: &usize| i64::from(column_type(&r.columns[*k].field()).oid);
        let classes = r.key.iter().map(|k| types::operator_class(type_of(k))).collect();
        vec![
            ("indexrelid", (oid(r) + INDEX_OFFSET).into()),
            ("indrelid", oid(r).into()),
            ("indnatts", n.clone()),
            ("indnkeyatts", n),
            ("indisunique", true.into()),
            ("indisprimary", true.into()),
            ("indimmediate", true.into()),
            ("indisvalid", true.into()),
            ("indisready", true.into()),
            ("indislive", true.into()),
            ("indkey", key_numbers(r)),
            ("indcollation", zeros()),
            ("indclass", Cell::Numbers(classes)),
            ("indoption", zeros()),
        ]
    };
    keyed(snapshot).map(index).collect()
}

pub(super) fn constraints(snapshot: &Snapshot) -> Vec<Row> {
    let constraint = |r: &Relation| -> Row {
        let index = oid(r) + INDEX_OFFSET;
        vec![
            ("oid", (index + INDEX_OFFSET).into()),
            ("conname", format!("{}_pkey", r.name).into()),
            ("connamespace", PUBLIC.into()),
            ("contype", "p".into()),
            ("convalidated", true.into()),
            ("conenforced", true.into()),
            ("conrelid", oid(r).into()),
            ("conindid", index.into()),
            ("conislocal", true.into()),
            ("connoinherit", true.into()),
            ("conkey", key_numbers(r)),
        ]
    };
    keyed(snapshot).map(constraint).collect()
}

/// What depends on what: indexes on their constraints, views on what they read.
pub(super) fn dependencies(snapshot: &Snapshot) -> Vec<Row> {
    let depends = |(class, id): (i64, i64), (on_class, on): (i64, i64), how: &str| -> Row {
        vec![
            ("classid", class.into()),
            ("objid", id.into()),
            ("refclassid", on_class.into()),
            ("refobjid", on.into()),
            ("deptype", how.into()),
        ]
    };
    let mut rows: Vec<Row> = Vec::new();
    for r in keyed(snapshot) {
        let (index, constraint) = (oid(r) + INDEX_OFFSET, oid(r) + 2 * INDEX_OFFSET);
        rows.push(depends((PG_CLASS, index), (PG_CONSTRAINT, constraint), "i"));
        rows.push(depends((PG_CONSTRAINT, constraint), (PG_CLASS, oid(r)), "a"));
    }
    for r in snapshot.catalog.visible().filter(|r| r.query.is_some()) {
        let rule = (PG_REWRITE, oid(r) + RULE_OFFSET);
        rows.push(depends(rule, (PG_CLASS, oid(r)), "i"));
        for source in r.sources() {
            rows.push(depends(rule, (PG_CLASS, relation_oid(source)), "n"));
        }
    }
    rows
}

/// The rule that a view is, in PostgreSQL.
pub(super) fn rules(snapshot: &Snapshot) -> Vec<Row> {
    let views = snapshot.catalog.visible().filter(|r| r.query.is_some());
    let rule = |r: &std::sync::Arc<Relation>| -> Row {
        vec![
            ("oid", (oid(r) + RULE_OFFSET).into()),
            ("rulename", "_RETURN".into()),
            ("ev_class", oid(r).into()),
            ("ev_type", "1".into()),
            ("ev_enabled", "O".into()),
            ("is_instead", true.into()),
        ]
    };
    views.map(rule).collect()
}

/// pg_tables, pg_views and pg_matviews.
pub(super) fn listed(snapshot: &Snapshot, name: &str) -> Vec<Row> {
    let (wanted, labels) = match name {
        "pg_tables" => ("r", ["tablename", "tableowner"]),
        "pg_matviews" => ("m", ["matviewname", "matviewowner"]),
        _ => ("v", ["viewname", "viewowner"]),
    };
    let relations = snapshot.catalog.visible().filter(|r| kind(r) == wanted);
    let mut rows: Vec<Row> = relations
        .map(|r| {
            let text = definition(&snapshot.catalog, Definition::View, oid(r));
            vec![
                ("schemaname", "public".into()),
                (labels[0], r.name.clone().into()),
                (labels[1], snapshot.catalog.access().owner(r.id).into()),
                ("hasindexes", has_key(r).into()),
                ("hasrules", false.into()),
                ("hastriggers", false.into()),
                ("rowsecurity", false.into()),
                ("ispopulated", true.into()),
                ("definition", text.into()),
            ]
        })
        .collect();
    let system = shapes::all().filter(|shape| shape.kind == wanted).map(|shape| -> Row {
        vec![
            ("schemaname", "pg_catalog".into()),
            (labels[0], shape.name.into()),
            (labels[1], "millpond".into()),
        ]
    });
    rows.extend(system);
    rows
}

pub(super) fn listed_indexes(snapshot: &Snapshot) -> Vec<Row> {
    let index = |r: &Relation| -> Row {
        let text = definition(&snapshot.catalog, Definition::Index, oid(r) + INDEX_OFFSET);
        vec![
            ("schemaname", "public".into()),
            ("tablename", r.name.clone().into()),
            ("indexname", format!("{}_pkey", r.name).into()),
            ("indexdef", text.into()),
        ]
    };
    keyed(snapshot).map(index).collect()
}

/// What is known of how tables are used: how many rows they have.
pub(super) fn table_statistics(snapshot: &Snapshot) -> Vec<Row> {
    let tables = snapshot.catalog.visible().filter(|r| kind(r) != "v");
    let statistics = |r: &std::sync::Arc<Relation>| -> Row {
        let rows = snapshot.table(r.id).ok().flatten().map(|version| version.num_rows() as u64);
        vec![
            ("relid", oid(r).into()),
            ("schemaname", NAMESPACES[1].1.into()),
            ("relname", r.name.clone().into()),
            ("n_live_tup", rows.into()),
        ]
    };
    tables.map(statistics).collect()
}

/// Bytes in memory of a relation's rows, or of all relations'.
pub(in super::super) fn relation_bytes(snapshot: &Snapshot, id: Option<i64>) -> Option<i64> {
    let wanted = |r: &&std::sync::Arc<Relation>| id.is_none_or(|id| oid(r) == id);
    let tables = snapshot.catalog.iter().filter(wanted).filter_map(|r| snapshot.table(r.id).ok().flatten());
    i64::try_from(tables.map(executor::TableVersion::bytes).sum::<usize>()).ok()
}

pub(super) fn index_statistics(snapshot: &Snapshot) -> Vec<Row> {
    let statistics = |r: &Relation| -> Row {
        vec![
            ("relid", oid(r).into()),
            ("indexrelid", (oid(r) + INDEX_OFFSET).into()),
            ("schemaname", NAMESPACES[1].1.into()),
            ("relname", r.name.clone().into()),
            ("indexrelname", format!("{}_pkey", r.name).into()),
            ("idx_scan", 0.into()),
        ]
    };
    keyed(snapshot).map(statistics).collect()
}
