//! Layouts of rows.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};

/// The layout with NULL allowed everywhere: a result's columns may hold it whatever was declared.
pub fn nullable(schema: &Schema) -> SchemaRef {
    let fields: Vec<_> = schema.fields().iter().map(|f| f.as_ref().clone().with_nullable(true)).collect();
    Arc::new(Schema::new(fields))
}
