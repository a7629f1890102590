//! The operators, one file each.

mod accumulators;
mod aggregate;
mod filter;
mod join;
mod join_side;
mod lookup;
mod negate;
mod project;
mod union;
mod window_assign;

pub(crate) use aggregate::{Aggregate, AggregateCall};
pub(crate) use filter::Filter;
pub(crate) use join::{Join, JoinSpec};
pub(crate) use lookup::Lookup;
pub(crate) use negate::Negate;
pub(crate) use project::Project;
pub(crate) use union::Union;
pub(crate) use window_assign::AssignWindows;
