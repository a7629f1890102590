//! The language: SQL text to [`Statement`].
//!
//! Pure: the same text gives the same statements, byte for byte; no I/O, no clock, no threads.
//! Both spellings, PostgreSQL's and ksqlDB's, end in one tree. Next: `planner` gives it meaning.

mod ast;
mod clauses;
mod collation;
mod dialect;
mod error;
mod limits;
mod options;
mod parser;
mod policies;
mod position;
mod roles;
mod settings;
mod subquery;
mod types;

pub use ast::*;
pub use clauses::{Clauses, Emit, Window, WindowKind, Within, take_asof, take_clauses, take_within};
pub use collation::check_collation;
pub use dialect::{MillpondDialect, cast_to};
pub use error::{Error, Result};
pub use limits::{MAX_EXPRESSION_OPERATORS, MAX_NESTING, MAX_STATEMENT_BYTES, MAX_TOKENS};
pub use options::{OptionValue, Options};
pub use parser::{fold, parse, parse_condition, parse_expressions, parse_query};
pub use policies::{NewPolicy, PolicyStatement};
pub use roles::{GrantOn, RoleOptions, RoleStatement, Secret};
pub use settings::normalize_setting;
pub use sqlparser;
pub use subquery::has_subquery;
pub use types::{SqlType, TextType, UUID, arrow_field, arrow_type, headers_type, text_map};
