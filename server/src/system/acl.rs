//! Access control lists, taken apart: `aclexplode` over what `pg_class.relacl` shows.
//!
//! Source: PostgreSQL, "Privileges" and "Access Privilege Inquiry Functions".

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray, StructArray, UInt32Array,
};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::Result;
use planner::{Catalog, Privilege};

use super::functions::EngineCell;

fn item_fields() -> Fields {
    Fields::from(vec![
        Field::new("grantor", DataType::UInt32, true),
        Field::new("grantee", DataType::UInt32, true),
        Field::new("privilege_type", DataType::Utf8, true),
        Field::new("is_grantable", DataType::Boolean, true),
    ])
}

/// What the function gives: a list, whose elements are its rows.
pub(super) fn items_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(item_fields()), true)))
}

/// Who granted whom what.
pub(super) fn items(
    engine: &EngineCell,
) -> impl Fn(&[ArrayRef], usize) -> Result<ArrayRef> + Send + Sync + 'static {
    let engine = Arc::clone(engine);
    move |args, rows| {
        let catalog = engine.get().map(|e| e.catalog());
        let texts = DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)));
        let lists = args.first().map(|list| cast(list, &texts)).transpose()?;
        let (mut all, mut lengths) = (Vec::new(), Vec::with_capacity(rows));
        for row in 0..rows {
            let before = all.len();
            if let Some(list) = lists.as_ref().map(|lists| lists.as_list::<i32>()).filter(|l| l.is_valid(row))
            {
                let list = list.value(row);
                let texts = list.as_string::<i32>().iter().flatten();
                all.extend(texts.filter_map(|text| catalog.as_ref().map(|c| granted(text, c))).flatten());
            }
            lengths.push(all.len() - before);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(all.iter().map(|item| Some(item.0)).collect::<UInt32Array>()),
            Arc::new(all.iter().map(|item| Some(item.1)).collect::<UInt32Array>()),
            Arc::new(all.iter().map(|item| Some(item.2)).collect::<StringArray>()),
            Arc::new(BooleanArray::from(vec![false; all.len()])),
        ];
        let items = StructArray::try_new(item_fields(), columns, None)?;
        let field = Arc::new(Field::new_list_field(DataType::Struct(item_fields()), true));
        Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), Arc::new(items), None)?))
    }
}

/// An item `grantee=letters/grantor`: grantor and grantee, 0 for everybody, and each privilege.
fn granted(item: &str, catalog: &Catalog) -> Vec<(u32, u32, &'static str)> {
    let id = |name: &str| {
        let role = catalog.access().roles().find(|role| role.name == name);
        role.map_or(0, |role| role.id)
    };
    let Some((grantee, rest)) = item.split_once('=') else { return Vec::new() };
    let (letters, grantor) = rest.split_once('/').unwrap_or((rest, ""));
    let privileges = Privilege::OF_RELATIONS.into_iter().chain([Privilege::Create]);
    let named = privileges.filter(|privilege| letters.contains(privilege.letter()));
    named.map(|privilege| (id(grantor), id(grantee), privilege.name())).collect()
}
