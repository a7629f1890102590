//! What can be wrong with a text. Each variant is a fact with its place; the server turns it into
//! an SQLSTATE.

/// A parse failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text does not follow the grammar.
    #[error("{message}")]
    Syntax {
        /// What was expected and what was found.
        message: String,
        /// 1-based character position in the text, as PostgreSQL counts it; 0 where unknown.
        position: usize,
        /// What to do about it, where that is known.
        hint: Option<String>,
    },
    /// A type name that has no meaning here.
    #[error("type \"{name}\" does not exist")]
    UnknownType {
        /// The name as written.
        name: String,
    },
    /// The grammar knows it, this version does not run it.
    #[error("{feature} is not supported")]
    Unsupported {
        /// What was asked for.
        feature: String,
        /// What works in its place.
        hint: Option<String>,
    },
    /// An option of WITH (…) or COPY (…) with a value it cannot have.
    #[error("invalid value for option \"{option}\": {reason}")]
    InvalidOption {
        /// The option.
        option: String,
        /// Why the value does not fit.
        reason: String,
    },
    /// A limit of the language was reached.
    #[error("{what} exceeds the limit of {limit}")]
    TooComplex {
        /// What was counted.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
}

/// The result of parsing.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn unsupported(feature: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Self::Unsupported { feature: feature.into(), hint: (!hint.is_empty()).then_some(hint) }
    }
}
