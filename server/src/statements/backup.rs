//! BACKUP: a copy of the data directory while everything goes on (0029).

use std::path::{Path, PathBuf};

use super::roles::denied;
use super::{Outcome, text_rows};
use crate::pg::WireError;
use crate::session::Session;

/// Copies to a directory of the server's machine. It writes as the server does, so it is for superusers.
pub(super) async fn backup(session: &Session, target: &str) -> Result<Outcome, WireError> {
    if !session.engine().snapshot().catalog.access().is_superuser(session.role()) {
        return Err(denied("make backups"));
    }
    if !Path::new(target).is_absolute() {
        let mut error = WireError::new("22023", format!("\"{target}\" is not an absolute path"));
        error.hint = Some("The server writes the backup: name the directory as its machine does.".into());
        return Err(error);
    }
    let (epoch, copied) = session.engine().backup(PathBuf::from(target)).await?;
    let row = [epoch, copied.files, copied.bytes].map(|number| Some(number.to_string()));
    text_rows(&["epoch", "files", "bytes"], vec![row.to_vec()])
        .map(|rows| Outcome::Rows(rows).tagged("BACKUP"))
}
