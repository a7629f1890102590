//! What a user can get wrong in meaning. Each variant is a fact; the server adds SQLSTATE and hint.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, SchemaError};

/// A planning failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is not SQL we know.
    #[error(transparent)]
    Sql(#[from] sql::Error),
    /// No relation of that name.
    #[error("relation \"{name}\" does not exist")]
    UnknownRelation {
        /// As written.
        name: String,
        /// A relation with a name much like it.
        similar: Option<String>,
    },
    /// No column of that name.
    #[error("column \"{column}\" of relation \"{relation}\" does not exist")]
    UnknownColumn {
        /// As written.
        column: String,
        /// Where it was looked for.
        relation: String,
    },
    /// The name is taken.
    #[error("relation \"{name}\" already exists")]
    DuplicateRelation {
        /// The name.
        name: String,
    },
    /// A column is named twice.
    #[error("column \"{name}\" specified more than once")]
    DuplicateColumn {
        /// The name.
        name: String,
    },
    /// The statement does not fit this kind of relation.
    #[error("\"{name}\" is not a {expected}")]
    WrongKind {
        /// The relation.
        name: String,
        /// What the statement needs.
        expected: &'static str,
    },
    /// CREATE SOURCE made it.
    #[error("cannot {action} \"{name}\": it is read-only")]
    ReadOnly {
        /// The relation.
        name: String,
        /// What the statement would do.
        action: &'static str,
    },
    /// It was not granted.
    #[error("permission denied for {what} {name}")]
    Denied {
        /// Table, view, schema.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Its policies show the role some of its rows only.
    #[error("row-level security of \"{name}\" holds for you: {why}")]
    RowSecurity {
        /// The relation.
        name: String,
        /// Why that is refused.
        why: &'static str,
    },
    /// Only its owner may do that.
    #[error("must be owner of {what} {name}")]
    NotOwner {
        /// Table, view.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Others read it.
    #[error("cannot drop \"{name}\" because other objects depend on it")]
    HasDependents {
        /// The relation.
        name: String,
        /// Who reads it.
        dependents: Vec<String>,
    },
    /// It is meaningful, but not run by this version.
    #[error("{what} is not supported{}", if *.continuous { " in a continuous query" } else { "" })]
    NotSupported {
        /// What was asked for.
        what: String,
        /// Only in a query that is kept up to date.
        continuous: bool,
        /// What works in its place.
        hint: Option<String>,
    },
    /// A value for an option or clause that cannot be.
    #[error("invalid {what}: {reason}")]
    Invalid {
        /// Which option or clause.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The statement does not define what it must.
    #[error("{0}")]
    Definition(String),
    /// Values of these types are not compared.
    #[error("operator does not exist: {left} {operator} {right}")]
    NoOperator {
        /// The left one's.
        left: DataType,
        /// How.
        operator: String,
        /// The right one's.
        right: DataType,
    },
    /// DataFusion's planner refused.
    #[error("{}", message(.0))]
    DataFusion(#[source] Box<DataFusionError>),
}

/// The result of planning.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn continuous(what: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self::NotSupported { what: what.into(), continuous: true, hint: (!hint.is_empty()).then_some(hint) }
    }

    pub(crate) fn invalid(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), reason: reason.into() }
    }

    /// Line and column of the place in the text, where DataFusion knows it.
    pub fn place(&self) -> Option<(u64, u64)> {
        let Self::DataFusion(error) = self else { return None };
        let span = error.diagnostic()?.span?;
        Some((span.start.line, span.start.column))
    }
}

impl From<DataFusionError> for Error {
    /// Gets our own error back out of the planner it passed through.
    fn from(error: DataFusionError) -> Self {
        match unwrap(error) {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(other) => Self::DataFusion(Box::new(DataFusionError::External(other))),
            },
            other => Self::DataFusion(Box::new(other)),
        }
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::DataFusion(inner) => *inner,
            other => Self::External(Box::new(other)),
        }
    }
}

/// Removes wrappers that carry no fact for the user. A diagnostic stays when it wraps DataFusion's own error.
fn unwrap(error: DataFusionError) -> DataFusionError {
    match error {
        DataFusionError::Context(_, inner) => unwrap(*inner),
        DataFusionError::Diagnostic(diagnostic, inner) => match unwrap(*inner) {
            external @ DataFusionError::External(_) => external,
            other => DataFusionError::Diagnostic(diagnostic, Box::new(other)),
        },
        DataFusionError::Collection(mut errors) if !errors.is_empty() => unwrap(errors.swap_remove(0)),
        other => other,
    }
}

/// DataFusion's message in PostgreSQL's style.
fn message(error: &DataFusionError) -> String {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, .. } => {
                format!("column \"{}\" does not exist", field.flat_name().replace('"', ""))
            }
            SchemaError::AmbiguousReference { field } => {
                format!("column reference \"{}\" is ambiguous", field.name)
            }
            SchemaError::DuplicateQualifiedField { name, .. }
            | SchemaError::DuplicateUnqualifiedField { name } => {
                format!("column \"{name}\" specified more than once")
            }
        },
        DataFusionError::Plan(text)
        | DataFusionError::Execution(text)
        | DataFusionError::NotImplemented(text)
        | DataFusionError::Internal(text)
        | DataFusionError::ResourcesExhausted(text)
        | DataFusionError::Configuration(text) => first_line(text),
        DataFusionError::ArrowError(error, _) => first_line(&error.to_string()),
        other => first_line(&other.strip_backtrace()),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}
