//! Names of relations: bare, or in the one schema there is.

use sql::sqlparser::ast::ObjectName;

use crate::error::{Error, Result};

/// Longest name in bytes, as PostgreSQL has it.
const MAX_NAME_BYTES: usize = 63;

/// The bare name of a relation.
///
/// # Errors
/// Another schema, or a name that is empty or too long.
pub(crate) fn relation_name(name: &ObjectName) -> Result<String> {
    let parts: Vec<String> = name.0.iter().filter_map(|p| p.as_ident()).map(sql::fold).collect();
    let name = match parts.as_slice() {
        [name] => name,
        [schema, name] if schema == "public" => name,
        [database, schema, name] if database == "millpond" && schema == "public" => name,
        _ => {
            return Err(Error::invalid(
                "name",
                format!("\"{name}\" is not in schema \"public\", the only one"),
            ));
        }
    };
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid("name", format!("it must have 1 to {MAX_NAME_BYTES} bytes")));
    }
    Ok(name.clone())
}
