//! The meaning: statements and a catalog become plans.
//!
//! Pure: no I/O, no clock, no threads; the same text and catalog give the same plan. A batch query
//! becomes a DataFusion logical plan over [`RelationSource`]s, a continuous one a [`Dataflow`] of
//! our own operators, made from the same optimised logical plan. Next: `executor` runs both.

mod alter;
mod binder;
mod catalog;
mod create;
mod dataflow;
mod error;
mod functions;
mod insert;
mod lookup;
mod session_assign;
mod source;
mod topic_options;
mod window_assign;
mod zone;

pub use alter::{check_replace, plan_add_columns, plan_rename};
pub use binder::{BatchQuery, Binder, Fallback};
pub use catalog::{
    Access, AccessChange, Catalog, Column, Comment, Comments, Encoding, FIRST_ROLE, Format, Grantee,
    KeyWindow, PSEUDO_COLUMNS, Policy, Privilege, RecordFormat, Relation, RelationId, RelationKind, Role,
    RowSecurity, Securable, Topic, TopicPart, TopicRef, VALUELESS, ViewQuery, check_owner, check_privilege,
};
pub use create::{parse_bytes, plan_comment, plan_create, plan_create_as, plan_drop};
pub use dataflow::{
    Dataflow, Joins, Node, NodeId, NodeKind, PlanIdentity, RowsInput, SessionColumn, SharedSide, Within,
    explain, explain_with,
};
pub use error::{Error, Result};
pub use functions::{
    TimePattern, canonical, interval_units, is_number, is_rounded, json_value, parse_boolean, parse_numeric,
    parse_uuid, read_lists, read_uuids, reads_as, rounded_values, scalar_function, session_state, state_at,
    write_uuid, write_value, zone_instant, zone_name, zone_offset,
};
pub use insert::plan_insert;
pub use lookup::{KeyValue, PointLookup};
pub use session_assign::{SessionAssign, SessionSpec, expand_sessions};
pub use source::{RelationSource, origins, sources};
pub use window_assign::{WindowAssign, WindowSpec};
pub use zone::field_in_zone;
