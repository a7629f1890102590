//! `pg_catalog` and `information_schema`: the catalog in PostgreSQL's shape.
//!
//! Object ids follow from relation ids, so they stay the same for ever. Every system relation is there with
//! its columns (`shapes.rs`); those that have something to say have rows.
//! Source: PostgreSQL, "System Catalogs".

mod definitions;
mod information_schema;
mod objects;
mod policies;
mod procedures;
mod server;
mod shapes;
mod types;

use datafusion::arrow::array::RecordBatch;

pub(super) use definitions::{Definition, definition, index_column, oid_of};
pub(super) use information_schema::information_schema;
pub(crate) use objects::relation_oid;
pub(super) use objects::{relation_bytes, relation_id};
pub(super) use procedures::{oid_of as procedure_oid, signature, source};

use super::SystemRelations;
use super::table::Row;

/// First object id of a user, as in PostgreSQL.
const FIRST_OID: i64 = 16_384;
/// Distance from a relation's object id to its key's index, and from there to its constraint.
const INDEX_OFFSET: i64 = 1_000_000_000;
const PG_CATALOG: i64 = 11;
const PUBLIC: i64 = 2200;
pub(super) const NAMESPACES: [(i64, &str); 4] =
    [(PG_CATALOG, "pg_catalog"), (PUBLIC, "public"), (13_000, "information_schema"), (13_001, "millpond")];
const OWNER: i64 = 10;
const HEAP: i64 = 2;
const BTREE: i64 = 403;

/// A relation of `pg_catalog`.
pub(super) fn relation(system: &SystemRelations, name: &str) -> Option<RecordBatch> {
    shapes::find(name)?.table(rows(system, name).unwrap_or_default())
}

/// The rows of a relation; None for one that never has any.
fn rows(system: &SystemRelations, name: &str) -> Option<Vec<Row>> {
    let snapshot = &system.snapshot;
    Some(match name {
        "pg_class" => objects::classes(snapshot),
        "pg_attribute" => objects::attributes(snapshot),
        "pg_attrdef" => objects::defaults(snapshot),
        "pg_index" => objects::indexes(snapshot),
        "pg_constraint" => objects::constraints(snapshot),
        "pg_depend" => objects::dependencies(snapshot),
        "pg_rewrite" => objects::rules(snapshot),
        "pg_policy" | "pg_policies" => policies::rows(snapshot),
        "pg_tables" | "pg_matviews" | "pg_views" => objects::listed(snapshot, name),
        "pg_indexes" => objects::listed_indexes(snapshot),
        "pg_stat_user_tables" | "pg_stat_all_tables" | "pg_statio_user_tables" | "pg_statio_all_tables" => {
            objects::table_statistics(snapshot)
        }
        "pg_stat_user_indexes" | "pg_stat_all_indexes" => objects::index_statistics(snapshot),
        "pg_type" => types::types(),
        "pg_get_keywords" => server::keywords(),
        "pg_cast" => types::casts(),
        "pg_operator" => types::operators(),
        "pg_opclass" | "pg_opfamily" => types::operator_classes(name),
        "pg_proc" => procedures::procedures(),
        "pg_aggregate" => procedures::aggregates(),
        "pg_language" => procedures::languages(),
        "pg_description" => [procedures::descriptions(), objects::comments(snapshot)].concat(),
        _ => return server::rows(system, name),
    })
}

/// Whether a relation is there but never has rows.
pub(super) fn is_empty(name: &str) -> bool {
    shapes::find(name).is_some() && !HAS_ROWS.contains(&name)
}

/// Relations that may have rows.
const HAS_ROWS: &[&str] = &[
    "pg_am",
    "pg_aggregate",
    "pg_attrdef",
    "pg_attribute",
    "pg_auth_members",
    "pg_authid",
    "pg_cast",
    "pg_class",
    "pg_collation",
    "pg_constraint",
    "pg_database",
    "pg_depend",
    "pg_description",
    "pg_index",
    "pg_indexes",
    "pg_language",
    "pg_matviews",
    "pg_namespace",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_policies",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_roles",
    "pg_settings",
    "pg_shadow",
    "pg_stat_activity",
    "pg_stat_all_indexes",
    "pg_stat_all_tables",
    "pg_stat_database",
    "pg_stat_user_indexes",
    "pg_stat_user_tables",
    "pg_statio_all_tables",
    "pg_statio_user_tables",
    "pg_tables",
    "pg_tablespace",
    "pg_timezone_names",
    "pg_type",
    "pg_user",
    "pg_views",
];
