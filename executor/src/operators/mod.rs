//! The operators, one file each.

mod accumulators;
mod aggregate;
mod distinct;
mod emit_final;
mod filter;
mod join;
mod keyed_rows;
mod lookup;
mod negate;
mod ordered;
mod project;
mod recompute;
mod row_chunks;
mod shards;
mod temporal_filter;
mod timed_rows;
mod top_n;
mod union;
mod unnest;
mod values;
mod window_assign;

pub(crate) use aggregate::{Aggregate, AggregateCall};
pub(crate) use emit_final::EmitFinal;
pub(crate) use filter::Filter;
pub(crate) use join::{Join, JoinSpec};
pub(crate) use keyed_rows::KeyedRows;
pub(crate) use lookup::Lookup;
pub(crate) use negate::Negate;
pub(crate) use project::Project;
pub(crate) use recompute::{Recompute, Shard as RecomputeShard};
pub(crate) use temporal_filter::TemporalFilter;
pub(crate) use top_n::{TopN, TopNSpec};
pub(crate) use union::Union;
pub(crate) use unnest::Unnest;
pub(crate) use values::Values;
pub(crate) use window_assign::AssignWindows;
