//! Which column of which relation a column of a result is, as RowDescription says it: drivers ask the catalog
//! for its name and whether it may be NULL.
//!
//! It goes with the layout, in the metadata of its fields, from where a query is bound to where it is told.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use planner::RelationId;

/// Key of a field's metadata.
const ORIGIN: &str = "millpond.origin";

/// The layout with the origins of its columns: relation, and position of the column.
pub(crate) fn with_origins(schema: &SchemaRef, origins: &[Option<(RelationId, usize)>]) -> SchemaRef {
    if origins.len() != schema.fields().len() || origins.iter().all(Option::is_none) {
        return Arc::clone(schema);
    }
    let field = |(field, origin): (&Arc<Field>, &Option<(RelationId, usize)>)| {
        let Some((relation, column)) = origin else { return field.as_ref().clone() };
        let mut metadata = field.metadata().clone();
        metadata.insert(ORIGIN.to_owned(), format!("{relation} {column}"));
        field.as_ref().clone().with_metadata(metadata)
    };
    Arc::new(Schema::new(schema.fields().iter().zip(origins).map(field).collect::<Vec<_>>()))
}

/// The id of the relation and the number of the column, from 1 on; zeros for a column that is made.
pub(super) fn origin(field: &Field) -> (i32, i16) {
    let read = || {
        let (relation, column) = field.metadata().get(ORIGIN)?.split_once(' ')?;
        let oid = crate::system::relation_oid(relation.parse().ok()?);
        Some((i32::try_from(oid).ok()?, column.parse::<i16>().ok()?.checked_add(1)?))
    };
    read().unwrap_or_default()
}
