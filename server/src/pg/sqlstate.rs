//! Errors as a client sees them: the only table from facts to SQLSTATE, position and hint.
//!
//! Source: PostgreSQL, "Appendix A. PostgreSQL Error Codes"; "Error Message Style Guide".

use datafusion::arrow::error::ArrowError;
use datafusion::common::{DataFusionError, SchemaError};
use executor::Error as ExecutorError;
use executor::Undecodable;
use planner::Error as PlannerError;

use super::types::type_name;
use super::wording::{Worded, unknown_operator, worded};

/// An error on its way to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireError {
    /// SQLSTATE.
    pub code: &'static str,
    /// What happened.
    pub message: String,
    /// More facts.
    pub detail: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// 1-based character position in the statement's text.
    pub position: Option<usize>,
    /// The same as line and column, until the text is known.
    place: Option<(u64, u64)>,
    /// What it names, to be looked for in the text.
    named: Option<String>,
    /// The connection ends with it.
    pub fatal: bool,
}

impl WireError {
    /// An error without hint or position.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            detail: None,
            hint: None,
            position: None,
            place: None,
            named: None,
            fatal: false,
        }
    }

    /// The same with a hint.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With what could be done about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, ending the connection.
    pub fn fatal(mut self) -> Self {
        self.fatal = true;
        self
    }

    /// Feature not supported.
    pub fn unsupported(what: impl std::fmt::Display) -> Self {
        Self::new("0A000", format!("{what} is not supported"))
    }

    /// The statement was cancelled.
    pub fn cancelled() -> Self {
        Self::new("57014", "canceling statement due to user request")
    }

    /// The server stops.
    pub fn shutting_down() -> Self {
        Self::new("57P01", "terminating connection due to administrator command").fatal()
    }

    /// Turns the line and column that the planner knows into a position in `text`.
    pub fn placed(mut self, text: &str) -> Self {
        if let (None, Some((line, column))) = (self.position, self.place) {
            let lines = usize::try_from(line.saturating_sub(1)).unwrap_or(0);
            let before: usize = text.lines().take(lines).map(|l| l.chars().count() + 1).sum();
            self.position = Some(before + usize::try_from(column).unwrap_or(0)).filter(|p| *p > 0);
        }
        if let (None, Some(name)) = (self.position, &self.named) {
            self.position = word_at(text, name);
        }
        self
    }
}

/// Where a word stands in a text, in characters from 1.
fn word_at(text: &str, word: &str) -> Option<usize> {
    let (lower, word) = (text.to_lowercase(), word.to_lowercase());
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let whole = |at: &usize| {
        let before = lower[..*at].chars().next_back();
        let after = lower[*at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    };
    let at = lower.match_indices(&word).map(|(at, _)| at).find(whole)?;
    Some(lower[..at].chars().count() + 1)
}

impl From<sql::Error> for WireError {
    fn from(error: sql::Error) -> Self {
        let message = error.to_string();
        match error {
            sql::Error::Syntax { position, hint, .. } => {
                let position = (position > 0).then_some(position);
                Self { position, hint, ..Self::new("42601", message) }
            }
            sql::Error::UnknownType { .. } => Self::new("42704", message),
            sql::Error::Unsupported { hint, .. } => Self { hint, ..Self::new("0A000", message) },
            sql::Error::InvalidOption { .. } => Self::new("22023", message),
            sql::Error::TooComplex { what, .. } if what.starts_with("length") => Self::new("54000", message),
            sql::Error::TooComplex { .. } => Self::new("54001", message).hint("split the statement"),
        }
    }
}

impl From<Worded> for WireError {
    fn from(Worded { code, message, hint }: Worded) -> Self {
        Self { hint, ..Self::new(code, message) }
    }
}

impl From<PlannerError> for WireError {
    fn from(error: PlannerError) -> Self {
        let (message, place) = (error.to_string(), error.place());
        match error {
            PlannerError::Sql(inner) => inner.into(),
            PlannerError::UnknownRelation { name, similar, .. } => {
                let hint = similar.map(|s| format!("Perhaps you meant \"{s}\"."));
                Self { hint, named: Some(name), ..Self::new("42P01", message) }
            }
            PlannerError::UnknownColumn { .. } => Self::new("42703", message),
            PlannerError::DuplicateRelation { .. } => Self::new("42P07", message),
            PlannerError::DuplicateColumn { .. } => Self::new("42701", message),
            PlannerError::WrongKind { .. } | PlannerError::ReadOnly { .. } => Self::new("42809", message),
            PlannerError::Denied { .. }
            | PlannerError::NotOwner { .. }
            | PlannerError::RowSecurity { .. } => Self::new("42501", message),
            PlannerError::HasDependents { dependents, .. } => {
                let detail = Some(
                    dependents.iter().map(|d| format!("\"{d}\" reads it")).collect::<Vec<_>>().join("\n"),
                );
                Self { detail, ..Self::new("2BP01", message) }
                    .hint("Use DROP … CASCADE to drop the dependent objects too.")
            }
            PlannerError::NotSupported { hint, .. } => Self { hint, ..Self::new("0A000", message) },
            PlannerError::Invalid { .. } => Self::new("22023", message),
            PlannerError::Definition(_) => Self::new("42P16", message),
            PlannerError::NoOperator { left, operator, right } => {
                unknown_operator(&type_name(&left), &operator, &type_name(&right)).into()
            }
            PlannerError::DataFusion(inner) if datafusion_code(&inner) == OUT_OF_MEMORY => {
                let error = Self { detail: Some(message), ..Self::new(OUT_OF_MEMORY, "out of memory") };
                error.hint("Ask for less at a time, or allow more: memory-limit of the server.")
            }
            PlannerError::DataFusion(inner) => match worded(&inner.find_root().strip_backtrace()) {
                Some(worded) => Self { place, ..worded.into() },
                None => Self { place, ..Self::new(datafusion_code(&inner), message) },
            },
        }
    }
}

impl From<ExecutorError> for WireError {
    fn from(error: ExecutorError) -> Self {
        let message = error.to_string();
        match error {
            ExecutorError::Plan(inner) => inner.into(),
            ExecutorError::Storage(inner) => {
                let code = match inner.kind() {
                    storage::Kind::DiskFull => "53100",
                    storage::Kind::Fatal => "58030",
                    storage::Kind::Corrupt => "XX001",
                    storage::Kind::Exists => "58P02",
                    storage::Kind::Misuse => "XX000",
                };
                let detail = std::error::Error::source(inner.as_ref()).map(ToString::to_string);
                Self { detail, ..Self::new(code, message) }
            }
            ExecutorError::Evaluation(inner) => {
                worded(&inner.to_string()).map_or_else(|| Self::new(arrow_code(&inner), message), Self::from)
            }
            ExecutorError::NullValue { .. } => Self::new("23502", message),
            ExecutorError::NotWritable { .. } => Self::new("42809", message),
            ExecutorError::LostHistory { .. } => Self::new("55000", message),
            ExecutorError::MemoryLimit { .. } => WireError::new("53200", message)
                .hint("Let it keep less, or allow more: WITH (memory_limit) of the view, memory-limit of the server."),
            ExecutorError::EndlessRecursion { .. } => WireError::new("54000", message)
                .hint("Let UNION leave out the rows that were there, or stop at a depth in WHERE."),
            ExecutorError::NoMemory { .. } => WireError::new("53200", message)
                .hint("Delete rows, drop views, or allow more: memory-limit of the server."),
            ExecutorError::QueryFailed { .. } => {
                Self::new("55000", message).hint("DROP and CREATE it again once the cause is gone.")
            }
            ExecutorError::Late(_) | ExecutorError::Undecodable(_) => Self::new(reject_code(&error), message),
            ExecutorError::Limit { .. } => Self::new("54000", message),
            ExecutorError::SlowReader { .. } => {
                Self::new("53400", message).hint("Read faster, or select less.")
            }
            ExecutorError::Dropped(_) => Self::new("42P01", message),
            ExecutorError::Stale { .. } => {
                Self::new("57014", message).hint("Raise read_timeout, or FLUSH first.")
            }
            ExecutorError::ShuttingDown => Self::shutting_down(),
            ExecutorError::Bug { .. } => Self::new("XX000", message),
        }
    }
}

const OUT_OF_MEMORY: &str = "53200";

impl From<DataFusionError> for WireError {
    fn from(error: DataFusionError) -> Self {
        let error = match error {
            DataFusionError::External(inner) => match inner.downcast::<ExecutorError>() {
                Ok(ours) => return (*ours).into(),
                Err(other) => DataFusionError::External(other),
            },
            other => other,
        };
        PlannerError::from(error).into()
    }
}

impl From<ArrowError> for WireError {
    fn from(error: ArrowError) -> Self {
        ExecutorError::from(error).into()
    }
}

/// The SQLSTATE of what kept a row out of a query's result.
pub fn reject_code(error: &ExecutorError) -> &'static str {
    match error {
        ExecutorError::Evaluation(inner) => arrow_code(inner),
        ExecutorError::Plan(PlannerError::DataFusion(inner)) => datafusion_code(inner),
        // A time that is out of the range there is for it.
        ExecutorError::Late(_) => "22008",
        ExecutorError::NullValue { .. } => "23502",
        ExecutorError::Undecodable(Undecodable { binary: true, .. }) => "22P03",
        ExecutorError::Undecodable(_) => "22P02",
        _ => "22000",
    }
}

fn datafusion_code(error: &DataFusionError) -> &'static str {
    match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { .. } => "42703",
            SchemaError::AmbiguousReference { .. } => "42702",
            SchemaError::DuplicateQualifiedField { .. } | SchemaError::DuplicateUnqualifiedField { .. } => {
                "42701"
            }
        },
        DataFusionError::ArrowError(error, _) => arrow_code(error),
        DataFusionError::NotImplemented(_) => "0A000",
        DataFusionError::ResourcesExhausted(_) => OUT_OF_MEMORY,
        DataFusionError::Context(_, inner) => datafusion_code(inner),
        DataFusionError::Shared(inner) => datafusion_code(inner),
        DataFusionError::Plan(text) => plan_code(text),
        DataFusionError::Execution(text) => execution_code(text),
        DataFusionError::SQL(..) => "42601",
        _ => "XX000",
    }
}

/// DataFusion tells its planning errors apart by text alone.
fn plan_code(text: &str) -> &'static str {
    let text = text.to_ascii_lowercase();
    if text.contains("invalid function")
        || text.contains("no function matches")
        || text.contains("function") && text.contains("exist")
    {
        "42883"
    } else if text.contains("must appear in the group by")
        || text.contains("must be in group by")
        || text.contains("references non-aggregate")
    {
        "42803"
    } else if text.contains("coerc") || text.contains("cannot infer") || text.contains("type") {
        "42804"
    } else if text.contains("expression names") {
        "42701"
    } else {
        "42601"
    }
}

fn execution_code(text: &str) -> &'static str {
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("more than one row") {
        "21000"
    } else if lower.starts_with("requested length too large") {
        "54000"
    } else if lower.contains("divide by zero") {
        "22012"
    } else if lower.contains("date/time field value out of range") {
        "22008"
    } else if lower.contains("overflow") || lower.contains("out of range") {
        "22003"
    } else if lower.starts_with("invalid input syntax") || lower.starts_with("malformed array literal") {
        "22P02"
    } else {
        "22000"
    }
}

fn arrow_code(error: &ArrowError) -> &'static str {
    match error {
        ArrowError::DivideByZero => "22012",
        ArrowError::ArithmeticOverflow(_) => "22003",
        ArrowError::CastError(text) | ArrowError::ParseError(text)
            if text.to_ascii_lowercase().contains("range") || text.starts_with("Can't cast value") =>
        {
            "22003"
        }
        ArrowError::CastError(_) | ArrowError::ParseError(_) => "22P02",
        ArrowError::InvalidArgumentError(text) if text.contains("too large") => "22003",
        ArrowError::NotYetImplemented(_) => "0A000",
        _ => "22000",
    }
}
