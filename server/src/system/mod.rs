//! The system's own relations: views of the one catalog, made when they are named.
//!
//! `pg_catalog` and `information_schema` answer what clients ask of PostgreSQL; `millpond` shows
//! the engine. Statements that touch the catalog alone are adapted to what DataFusion can plan;
//! a statement over user data never is.

mod acl;
mod adapt;
mod expressions;
mod functions;
mod known;
mod millpond;
mod pg_catalog;
mod select_list;
mod sleep;
mod table;

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::TableSource;
use executor::{Engine, Snapshot};
use planner::{Access, Privilege, Securable};

pub(crate) use adapt::adapt;
pub(crate) use functions::EngineCell;
pub(crate) use known::{Who, settings_made};
pub(crate) use pg_catalog::relation_oid;

use crate::memory::sort_reservation;
use crate::pg::Registry;
use crate::session::{Session, Shared};
use crate::settings::Settings;

/// The state every session plans with: DataFusion's functions and PostgreSQL's system functions.
pub(crate) fn session_state(
    (partitions, runtime): (usize, Arc<RuntimeEnv>),
    engine: &EngineCell,
    registry: &Arc<Registry>,
) -> SessionState {
    let state = planner::session_state(partitions);
    let mut functions: Vec<_> = state.scalar_functions().values().cloned().collect();
    functions.extend(functions::all(engine, registry));
    functions.extend(sleep::functions(engine));
    let reserved = sort_reservation(&runtime);
    let mut state = SessionStateBuilder::new_from_existing(state)
        .with_scalar_functions(functions)
        .with_runtime_env(runtime)
        .build();
    if let Some(bytes) = reserved {
        state.config_mut().options_mut().execution.sort_spill_reservation_bytes = bytes;
    }
    state
}

/// System relations at one epoch, for one session.
pub(crate) struct SystemRelations {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) settings: Settings,
    shared: Arc<Shared>,
    /// Whose privileges count.
    role: String,
}

impl SystemRelations {
    pub(crate) fn new(snapshot: Arc<Snapshot>, session: &Session) -> Self {
        Self {
            snapshot,
            settings: session.settings.clone(),
            shared: Arc::clone(&session.shared),
            role: session.role().to_owned(),
        }
    }

    fn access(&self) -> &Access {
        self.snapshot.catalog.access()
    }

    /// Whether the session may read what is said of a relation's rows, of all of them.
    fn may_read(&self, relation: &str) -> bool {
        match self.snapshot.catalog.get(relation) {
            Some(relation) => {
                self.access().may(&self.role, Privilege::Select, Securable::Relation(relation.id))
                    && self.access().sees_all(&self.role, relation.id)
            }
            None => self.access().is_superuser(&self.role),
        }
    }

    fn engine(&self) -> &Engine {
        &self.shared.engine
    }
}

impl planner::Fallback for SystemRelations {
    fn source(&self, name: &TableReference) -> Option<Arc<dyn TableSource>> {
        let batch = match name.schema() {
            Some("millpond") => millpond::relation(self, name.table()),
            None | Some("pg_catalog") => pg_catalog::relation(self, name.table()),
            Some("information_schema") => pg_catalog::information_schema(self, name.table()),
            _ => None,
        }?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).ok()?;
        Some(provider_as_source(Arc::new(table)))
    }
}
