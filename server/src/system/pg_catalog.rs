//! `pg_catalog` and `information_schema`: the catalog in PostgreSQL's shape.
//!
//! Object ids follow from relation ids, so they stay the same for ever.
//! Source: PostgreSQL, "System Catalogs".

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::DataType;
use planner::{Catalog, Relation, RelationKind};

use super::SystemRelations;
use super::table::{Cell, table};
use crate::pg::{pg_type, type_name};
use crate::settings::display_name;

/// First object id of a user, as in PostgreSQL.
const FIRST_OID: i64 = 16_384;
/// Distance from a relation's object id to its key's index.
const INDEX_OFFSET: i64 = 1_000_000_000;
const NAMESPACES: [(i64, &str); 4] =
    [(11, "pg_catalog"), (2200, "public"), (13_000, "information_schema"), (13_001, "millpond")];
const OWNER: i64 = 10;
const HEAP: i64 = 2;
const BTREE: i64 = 403;

/// Types a column can have: object id, name, size, category, object id of its array.
const TYPES: [(i64, &str, i16, &str, i64); 15] = [
    (16, "bool", 1, "B", 1000),
    (17, "bytea", -1, "U", 1001),
    (19, "name", 64, "S", 1003),
    (20, "int8", 8, "N", 1016),
    (21, "int2", 2, "N", 1005),
    (23, "int4", 4, "N", 1007),
    (25, "text", -1, "S", 1009),
    (26, "oid", 4, "N", 1028),
    (700, "float4", 4, "N", 1021),
    (701, "float8", 8, "N", 1022),
    (1082, "date", 4, "D", 1182),
    (1083, "time", 8, "D", 1183),
    (1114, "timestamp", 8, "D", 1115),
    (1184, "timestamptz", 8, "D", 1185),
    (1700, "numeric", -1, "N", 1231),
];

/// Relations that are there but have no rows here, with the columns clients name.
const EMPTY: [(&str, &str); 16] = [
    ("pg_collation", "oid:i collname collnamespace:i collprovider"),
    ("pg_inherits", "inhrelid:i inhparent:i inhseqno:i inhdetachpending:b"),
    ("pg_policy", "oid:i polname polrelid:i polcmd polpermissive:b polroles polqual polwithcheck"),
    (
        "pg_statistic_ext",
        "oid:i stxrelid:i stxname stxnamespace:i stxowner:i stxstattarget:i stxkeys stxkind:a",
    ),
    (
        "pg_publication",
        "oid:i pubname pubowner:i puballtables:b pubinsert:b pubupdate:b pubdelete:b pubtruncate:b pubviaroot:b",
    ),
    ("pg_publication_rel", "oid:i prpubid:i prrelid:i prqual prattrs"),
    ("pg_publication_namespace", "oid:i pnpubid:i pnnspid:i"),
    ("pg_trigger", "oid:i tgrelid:i tgname tgenabled tgisinternal:b tgparentid:i tgconstraint:i"),
    ("pg_rewrite", "oid:i rulename ev_class:i ev_type ev_enabled is_instead:b"),
    ("pg_foreign_table", "ftrelid:i ftserver:i ftoptions"),
    ("pg_foreign_server", "oid:i srvname"),
    ("pg_partitioned_table", "partrelid:i partstrat partnatts:s"),
    ("pg_description", "objoid:i classoid:i objsubid:i description"),
    ("pg_depend", "classid:i objid:i objsubid:i refclassid:i refobjid:i refobjsubid:i deptype"),
    ("pg_enum", "oid:i enumtypid:i enumsortorder:i enumlabel"),
    ("pg_extension", "oid:i extname extnamespace:i extversion"),
];

pub(super) fn relation(system: &SystemRelations, name: &str) -> Option<RecordBatch> {
    match name {
        "pg_namespace" => {
            let rows = NAMESPACES
                .iter()
                .map(|(oid, name)| vec![(*oid).into(), (*name).into(), OWNER.into(), Cell::Text(None)]);
            table(
                &[("oid", big()), ("nspname", text()), ("nspowner", big()), ("nspacl", Cell::NoList)],
                rows.collect(),
            )
        }
        "pg_class" => classes(system),
        "pg_attribute" => attributes(system),
        "pg_type" => types(),
        "pg_attrdef" => defaults(system),
        "pg_index" => indexes(system),
        "pg_constraint" => constraints(system),
        "pg_am" => table(
            &[("oid", big()), ("amname", text()), ("amtype", text())],
            vec![
                vec![HEAP.into(), "heap".into(), "t".into()],
                vec![BTREE.into(), "btree".into(), "i".into()],
            ],
        ),
        "pg_roles" | "pg_user" | "pg_authid" => roles(),
        "pg_database" => table(
            &[
                ("oid", big()),
                ("datname", text()),
                ("datdba", big()),
                ("encoding", Cell::Int(0)),
                ("datcollate", text()),
                ("datctype", text()),
                ("datallowconn", Cell::Bool(true)),
                ("datistemplate", Cell::Bool(false)),
                ("datlocprovider", text()),
                ("daticulocale", text()),
                ("datacl", Cell::NoList),
            ],
            vec![vec![
                5i64.into(),
                "millpond".into(),
                OWNER.into(),
                6i32.into(),
                "C.UTF-8".into(),
                "C.UTF-8".into(),
                true.into(),
                false.into(),
                "c".into(),
                Cell::Text(None),
                Cell::Text(None),
            ]],
        ),
        "pg_settings" => {
            let rows = system.settings.all().map(|(s, value)| {
                vec![display_name(s.name).into(), value.into(), s.doc.into(), s.default.into()]
            });
            table(
                &[("name", text()), ("setting", text()), ("short_desc", text()), ("boot_val", text())],
                rows.collect(),
            )
        }
        "pg_tables" | "pg_matviews" | "pg_views" => listed(system, name),
        _ => EMPTY.iter().find(|(n, _)| *n == name).and_then(|(_, columns)| empty(columns)),
    }
}

/// Whether a relation is there but never has rows.
pub(super) fn is_empty(name: &str) -> bool {
    EMPTY.iter().any(|(n, _)| *n == name)
}

fn text() -> Cell {
    Cell::Text(None)
}

fn big() -> Cell {
    Cell::Big(None)
}

fn empty(columns: &str) -> Option<RecordBatch> {
    let model: Vec<(&str, Cell)> = columns
        .split(' ')
        .map(|column| match column.split_once(':') {
            Some((name, "i")) => (name, big()),
            Some((name, "a")) => (name, Cell::NoList),
            Some((name, "s")) => (name, Cell::Small(0)),
            Some((name, _)) => (name, Cell::Bool(false)),
            None => (column, text()),
        })
        .collect();
    table(&model, Vec::new())
}

fn oid(relation: &Relation) -> i64 {
    FIRST_OID + i64::from(relation.id)
}

fn kind(relation: &Relation) -> &'static str {
    match relation.kind {
        RelationKind::Stream | RelationKind::Table => "r",
        RelationKind::MaterializedView => "m",
        RelationKind::View => "v",
    }
}

/// Whether the key is one a user declared or a table's query makes unique.
fn has_key(relation: &Relation) -> bool {
    relation.kind == RelationKind::Table && !relation.key.is_empty()
}

fn classes(system: &SystemRelations) -> Option<RecordBatch> {
    let model = [
        ("oid", big()),
        ("relname", text()),
        ("relnamespace", big()),
        ("reltype", big()),
        ("reloftype", big()),
        ("relowner", big()),
        ("relam", big()),
        ("relfilenode", big()),
        ("reltablespace", big()),
        ("relpages", Cell::Int(0)),
        ("reltuples", big()),
        ("reltoastrelid", big()),
        ("relhasindex", Cell::Bool(false)),
        ("relisshared", Cell::Bool(false)),
        ("relpersistence", text()),
        ("relkind", text()),
        ("relnatts", Cell::Small(0)),
        ("relchecks", Cell::Small(0)),
        ("relhasrules", Cell::Bool(false)),
        ("relhastriggers", Cell::Bool(false)),
        ("relhassubclass", Cell::Bool(false)),
        ("relrowsecurity", Cell::Bool(false)),
        ("relforcerowsecurity", Cell::Bool(false)),
        ("relispopulated", Cell::Bool(true)),
        ("relreplident", text()),
        ("relispartition", Cell::Bool(false)),
        ("relacl", Cell::NoList),
        ("reloptions", Cell::NoList),
        ("relpartbound", text()),
    ];
    let class = |oid: i64, name: String, kind: &str, columns: usize, index: bool| -> Vec<Cell> {
        let access = match kind {
            "i" => BTREE,
            "v" => 0,
            _ => HEAP,
        };
        vec![
            oid.into(),
            name.into(),
            2200i64.into(),
            0i64.into(),
            0i64.into(),
            OWNER.into(),
            access.into(),
            oid.into(),
            0i64.into(),
            0i32.into(),
            (-1i64).into(),
            0i64.into(),
            index.into(),
            false.into(),
            "p".into(),
            kind.into(),
            i16::try_from(columns).unwrap_or(0).into(),
            0i16.into(),
            false.into(),
            false.into(),
            false.into(),
            false.into(),
            false.into(),
            true.into(),
            "d".into(),
            false.into(),
            Cell::Text(None),
            Cell::Text(None),
            Cell::Text(None),
        ]
    };
    let mut rows = Vec::new();
    for relation in system.snapshot.catalog.visible() {
        rows.push(class(
            oid(relation),
            relation.name.clone(),
            kind(relation),
            relation.columns.len(),
            has_key(relation),
        ));
        if has_key(relation) {
            rows.push(class(
                oid(relation) + INDEX_OFFSET,
                format!("{}_pkey", relation.name),
                "i",
                relation.key.len(),
                false,
            ));
        }
    }
    table(&model, rows)
}

fn attributes(system: &SystemRelations) -> Option<RecordBatch> {
    let model = [
        ("attrelid", big()),
        ("attname", text()),
        ("atttypid", big()),
        ("attlen", Cell::Small(0)),
        ("attnum", Cell::Small(0)),
        ("atttypmod", Cell::Int(0)),
        ("attnotnull", Cell::Bool(false)),
        ("atthasdef", Cell::Bool(false)),
        ("attidentity", text()),
        ("attgenerated", text()),
        ("attisdropped", Cell::Bool(false)),
        ("attislocal", Cell::Bool(true)),
        ("attcollation", big()),
        ("attstattarget", Cell::Int(0)),
        ("attstorage", text()),
        ("attcompression", text()),
        ("attacl", Cell::NoList),
        ("attoptions", Cell::NoList),
        ("attfdwoptions", Cell::NoList),
        ("attndims", Cell::Int(0)),
    ];
    let mut rows = Vec::new();
    for relation in system.snapshot.catalog.visible() {
        for (number, column) in (1i16..).zip(&relation.columns) {
            let pg = pg_type(&column.data_type);
            let storage = if pg.size < 0 { "x" } else { "p" };
            rows.push(vec![
                oid(relation).into(),
                column.name.clone().into(),
                i64::from(pg.oid).into(),
                pg.size.into(),
                number.into(),
                pg.modifier.into(),
                column.not_null.into(),
                column.default.is_some().into(),
                "".into(),
                "".into(),
                false.into(),
                true.into(),
                0i64.into(),
                (-1i32).into(),
                storage.into(),
                "".into(),
                Cell::Text(None),
                Cell::Text(None),
                Cell::Text(None),
                i32::from(matches!(column.data_type, DataType::List(_))).into(),
            ]);
        }
    }
    table(&model, rows)
}

fn defaults(system: &SystemRelations) -> Option<RecordBatch> {
    let mut rows = Vec::new();
    for relation in system.snapshot.catalog.visible() {
        for (number, column) in (1i16..).zip(&relation.columns).filter(|(_, c)| c.default.is_some()) {
            let id = oid(relation) * 2000 + i64::from(number);
            rows.push(vec![id.into(), oid(relation).into(), number.into(), column.default.clone().into()]);
        }
    }
    table(&[("oid", big()), ("adrelid", big()), ("adnum", Cell::Small(0)), ("adbin", text())], rows)
}

/// PostgreSQL's text for what an object id names: an index, a constraint or a view's query.
pub(super) fn definition(catalog: &Catalog, what: Definition, id: i64) -> Option<String> {
    let relation_of = |oid: i64| catalog.by_id(u32::try_from(oid - FIRST_OID).ok()?);
    let keys = |r: &Relation| r.key.iter().map(|k| r.columns[*k].name.clone()).collect::<Vec<_>>().join(", ");
    match what {
        Definition::Index => {
            let r = relation_of(id - INDEX_OFFSET)?;
            Some(format!("CREATE UNIQUE INDEX {0}_pkey ON public.{0} USING btree ({1})", r.name, keys(r)))
        }
        Definition::Constraint => {
            Some(format!("PRIMARY KEY ({})", keys(relation_of(id - 2 * INDEX_OFFSET)?)))
        }
        Definition::View => {
            let r = relation_of(id)?;
            let at = r.text.to_ascii_lowercase().find(" as ")? + 4;
            Some(format!(" {};", r.text[at..].trim()))
        }
        Definition::Name => match relation_of(id) {
            Some(r) => Some(r.name.clone()),
            None => Some(format!("{}_pkey", relation_of(id - INDEX_OFFSET)?.name)),
        },
    }
}

/// What [`definition`] is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Definition {
    Index,
    Constraint,
    View,
    Name,
}

fn types() -> Option<RecordBatch> {
    let model = [
        ("oid", big()),
        ("typname", text()),
        ("typnamespace", big()),
        ("typowner", big()),
        ("typlen", Cell::Small(0)),
        ("typtype", text()),
        ("typcategory", text()),
        ("typrelid", big()),
        ("typelem", big()),
        ("typarray", big()),
        ("typbasetype", big()),
        ("typtypmod", Cell::Int(0)),
        ("typnotnull", Cell::Bool(false)),
        ("typcollation", big()),
        ("typdelim", text()),
    ];
    let row = |oid: i64, name: String, size: i16, category: &str, element: i64, array: i64| -> Vec<Cell> {
        vec![
            oid.into(),
            name.into(),
            11i64.into(),
            OWNER.into(),
            size.into(),
            "b".into(),
            category.into(),
            0i64.into(),
            element.into(),
            array.into(),
            0i64.into(),
            (-1i32).into(),
            false.into(),
            0i64.into(),
            ",".into(),
        ]
    };
    let mut rows = Vec::new();
    for (oid, name, size, category, array) in TYPES {
        rows.push(row(oid, name.to_owned(), size, category, 0, array));
        rows.push(row(array, format!("_{name}"), -1, "A", oid, 0));
    }
    table(&model, rows)
}

fn key_numbers(relation: &Relation) -> String {
    relation.key.iter().map(|k| (k + 1).to_string()).collect::<Vec<_>>().join(" ")
}

fn indexes(system: &SystemRelations) -> Option<RecordBatch> {
    let model = [
        ("indexrelid", big()),
        ("indrelid", big()),
        ("indnatts", Cell::Small(0)),
        ("indnkeyatts", Cell::Small(0)),
        ("indisunique", Cell::Bool(true)),
        ("indisprimary", Cell::Bool(true)),
        ("indisexclusion", Cell::Bool(false)),
        ("indimmediate", Cell::Bool(true)),
        ("indisclustered", Cell::Bool(false)),
        ("indisvalid", Cell::Bool(true)),
        ("indisready", Cell::Bool(true)),
        ("indislive", Cell::Bool(true)),
        ("indisreplident", Cell::Bool(false)),
        ("indkey", text()),
        ("indexprs", text()),
        ("indpred", text()),
    ];
    let rows = system.snapshot.catalog.visible().filter(|r| has_key(r)).map(|r| {
        let n = i16::try_from(r.key.len()).unwrap_or(0);
        vec![
            (oid(r) + INDEX_OFFSET).into(),
            oid(r).into(),
            n.into(),
            n.into(),
            true.into(),
            true.into(),
            false.into(),
            true.into(),
            false.into(),
            true.into(),
            true.into(),
            true.into(),
            false.into(),
            key_numbers(r).into(),
            Cell::Text(None),
            Cell::Text(None),
        ]
    });
    table(&model, rows.collect())
}

fn constraints(system: &SystemRelations) -> Option<RecordBatch> {
    let model = [
        ("oid", big()),
        ("conname", text()),
        ("connamespace", big()),
        ("contype", text()),
        ("condeferrable", Cell::Bool(false)),
        ("condeferred", Cell::Bool(false)),
        ("convalidated", Cell::Bool(true)),
        ("conrelid", big()),
        ("contypid", big()),
        ("conindid", big()),
        ("conparentid", big()),
        ("confrelid", big()),
        ("conkey", text()),
        ("confkey", text()),
    ];
    let rows = system.snapshot.catalog.visible().filter(|r| has_key(r)).map(|r| {
        let index = oid(r) + INDEX_OFFSET;
        vec![
            (index + INDEX_OFFSET).into(),
            format!("{}_pkey", r.name).into(),
            2200i64.into(),
            "p".into(),
            false.into(),
            false.into(),
            true.into(),
            oid(r).into(),
            0i64.into(),
            index.into(),
            0i64.into(),
            0i64.into(),
            key_numbers(r).into(),
            Cell::Text(None),
        ]
    });
    table(&model, rows.collect())
}

fn roles() -> Option<RecordBatch> {
    let model = [
        ("oid", big()),
        ("rolname", text()),
        ("usename", text()),
        ("rolsuper", Cell::Bool(true)),
        ("rolinherit", Cell::Bool(true)),
        ("rolcreaterole", Cell::Bool(true)),
        ("rolcreatedb", Cell::Bool(true)),
        ("rolcanlogin", Cell::Bool(true)),
        ("rolconnlimit", Cell::Int(0)),
        ("rolvaliduntil", text()),
        ("rolreplication", Cell::Bool(false)),
        ("rolbypassrls", Cell::Bool(true)),
    ];
    let row = vec![
        OWNER.into(),
        "millpond".into(),
        "millpond".into(),
        true.into(),
        true.into(),
        true.into(),
        true.into(),
        true.into(),
        (-1i32).into(),
        Cell::Text(None),
        false.into(),
        true.into(),
    ];
    table(&model, vec![row])
}

fn listed(system: &SystemRelations, name: &str) -> Option<RecordBatch> {
    let (wanted, label): (&[&str], &str) = match name {
        "pg_tables" => (&["r"], "tablename"),
        "pg_matviews" => (&["m"], "matviewname"),
        _ => (&["v"], "viewname"),
    };
    let rows = system.snapshot.catalog.visible().filter(|r| wanted.contains(&kind(r))).map(|r| {
        vec![
            "public".into(),
            r.name.clone().into(),
            "millpond".into(),
            has_key(r).into(),
            r.text.clone().into(),
        ]
    });
    let owner = match name {
        "pg_tables" => "tableowner",
        "pg_matviews" => "matviewowner",
        _ => "viewowner",
    };
    table(
        &[
            ("schemaname", text()),
            (label, text()),
            (owner, text()),
            ("hasindexes", Cell::Bool(false)),
            ("definition", text()),
        ],
        rows.collect(),
    )
}

/// `information_schema`.
pub(super) fn information_schema(system: &SystemRelations, name: &str) -> Option<RecordBatch> {
    match name {
        "schemata" => {
            let rows =
                NAMESPACES.iter().map(|(_, name)| vec!["millpond".into(), (*name).into(), "millpond".into()]);
            table(
                &[("catalog_name", text()), ("schema_name", text()), ("schema_owner", text())],
                rows.collect(),
            )
        }
        "tables" => {
            let rows =
                system.snapshot.catalog.visible().filter(|r| r.kind != RelationKind::MaterializedView).map(
                    |r| {
                        let kind = if r.kind == RelationKind::View { "VIEW" } else { "BASE TABLE" };
                        let writable = if r.is_base() { "YES" } else { "NO" };
                        vec![
                            "millpond".into(),
                            "public".into(),
                            r.name.clone().into(),
                            kind.into(),
                            writable.into(),
                        ]
                    },
                );
            table(
                &[
                    ("table_catalog", text()),
                    ("table_schema", text()),
                    ("table_name", text()),
                    ("table_type", text()),
                    ("is_insertable_into", text()),
                ],
                rows.collect(),
            )
        }
        "columns" => {
            let mut rows = Vec::new();
            for relation in system.snapshot.catalog.visible() {
                for (number, column) in (1i32..).zip(&relation.columns) {
                    let pg = i64::from(pg_type(&column.data_type).oid);
                    let internal = TYPES.iter().find(|t| t.0 == pg).map_or("text", |t| t.1);
                    let nullable = if column.not_null { "NO" } else { "YES" };
                    rows.push(vec![
                        "millpond".into(),
                        "public".into(),
                        relation.name.clone().into(),
                        column.name.clone().into(),
                        number.into(),
                        column.default.clone().into(),
                        nullable.into(),
                        type_name(&column.data_type).into(),
                        "pg_catalog".into(),
                        internal.into(),
                    ]);
                }
            }
            let model = [
                ("table_catalog", text()),
                ("table_schema", text()),
                ("table_name", text()),
                ("column_name", text()),
                ("ordinal_position", Cell::Int(0)),
                ("column_default", text()),
                ("is_nullable", text()),
                ("data_type", text()),
                ("udt_schema", text()),
                ("udt_name", text()),
            ];
            table(&model, rows)
        }
        _ => None,
    }
}
