//! Collations: texts are compared byte by byte, and a name of another order is refused, not ignored.

use sqlparser::ast::{ObjectName, ObjectNamePart};

use crate::error::Error;
use crate::fold;

/// Those in which texts compare as their bytes do, with the schema they may be written with.
const BYTEWISE: [&str; 4] = ["C", "POSIX", "ucs_basic", "default"];

/// Makes sure that a collation is the order there is.
///
/// # Errors
/// [`Error::Unsupported`] for any other.
pub fn check_collation(name: &ObjectName) -> Result<(), Error> {
    let last = name.0.last().and_then(ObjectNamePart::as_ident).map(fold).unwrap_or_default();
    if BYTEWISE.contains(&last.as_str()) {
        return Ok(());
    }
    let hint = "COLLATE \"C\" and \"POSIX\" are: texts are compared byte by byte";
    Err(Error::unsupported(format!("the collation \"{last}\""), hint))
}
