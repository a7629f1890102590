//! What PostgreSQL's system relations look like: names, columns, types. A relation that has nothing to show
//! here is there all the same, with its columns and without rows.
//!
//! `shapes.txt` has a relation on each line: object id, kind, name, columns as `name:type`, with `!` where
//! there is always a value. Source: PostgreSQL 15, "System Catalogs", "System Views", "The Information Schema".

use std::sync::LazyLock;

use datafusion::arrow::array::RecordBatch;

use super::super::table::{Cell, Kind, Row, table};

/// A system relation.
pub(super) struct Shape {
    pub(super) oid: i64,
    /// `r` for a table, `v` for a view.
    pub(super) kind: &'static str,
    pub(super) name: &'static str,
    pub(super) columns: Vec<Column>,
}

/// A column of it.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// Its type's name.
    pub(super) type_name: &'static str,
    /// There is always a value.
    pub(super) required: bool,
}

static SHAPES: LazyLock<Vec<Shape>> =
    LazyLock::new(|| include_str!("shapes.txt").lines().filter_map(shape).collect());

fn shape(line: &'static str) -> Option<Shape> {
    let mut words = line.split(' ');
    let (oid, kind, name) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let columns = words.filter_map(|word| {
        let (column, type_name) = word.split_once(':')?;
        let required = type_name.ends_with('!');
        Some(Column { name: column, type_name: type_name.trim_end_matches('!'), required })
    });
    Some(Shape { oid, kind, name, columns: columns.collect() })
}

/// The relation of a name; of `information_schema` with the schema.
pub(super) fn find(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}

/// All relations of `pg_catalog`.
pub(super) fn all() -> impl Iterator<Item = &'static Shape> {
    SHAPES.iter().filter(|shape| shape.oid > 0)
}

impl Shape {
    /// The relation with rows; what they do not say is nothing, or false, zero and the empty text where
    /// there is always a value.
    pub(super) fn table(&self, mut rows: Vec<Row>) -> Option<RecordBatch> {
        let mut model: Vec<(&str, Kind, bool)> =
            self.columns.iter().map(|c| (c.name, kind(c.type_name), c.required)).collect();
        if self.oid > 0 {
            model.push(("tableoid", Kind::Oid, true));
            rows.iter_mut().for_each(|row| row.push(("tableoid", Cell::from(self.oid))));
        }
        table(&model, rows)
    }
}

fn kind(type_name: &str) -> Kind {
    match type_name {
        "bool" => Kind::Bool,
        "int2" => Kind::Small,
        "int4" | "cardinal_number" => Kind::Int,
        "int8" | "xid" => Kind::Big,
        "oid" => Kind::Oid,
        "float4" | "float8" => Kind::Double,
        "timestamptz" | "time_stamp" => Kind::Time,
        "bytea" => Kind::Bytes,
        "_oid" => Kind::BigList,
        "oidvector" => Kind::BigVector,
        "_int2" => Kind::SmallList,
        "int2vector" => Kind::SmallVector,
        list if list.starts_with('_') => Kind::TextList,
        _ => Kind::Text,
    }
}
