//! The Postgres wire: frames in, messages out. The only folder that says `pgwire`.

mod array_text;
mod connection;
mod copy_format;
mod decode;
mod encode;
mod entry;
mod frames;
mod listener;
mod origin;
mod scram;
mod sqlstate;
mod tls;
mod types;
mod wording;

pub use connection::Registry;
pub use copy_format::CopyParser;
pub use decode::{ColumnBuilder, RowBuilder};
pub use encode::Format;
pub(crate) use encode::text as write_text;
pub use entry::Door;
pub use listener::{Listener, serve};
pub(crate) use origin::with_origins;
pub(crate) use scram::password_verifier;
pub use sqlstate::WireError;
pub(crate) use sqlstate::reject_code;
pub use tls::{Tls, TlsError, TlsFiles};
pub use types::{PgType, column_type, pg_type};
pub(crate) use types::{as_vector, base_name, type_name};
