//! `WITH (name = value, …)`: kept in order, read by name, whatever the case.

use crate::clauses::duration_ms;
use crate::error::{Error, Result};

/// A literal in WITH (…).
#[derive(Debug, Clone, PartialEq)]
pub enum OptionValue {
    /// A quoted string or a bare word.
    Text(String),
    /// A number, as written.
    Number(String),
    /// TRUE or FALSE.
    Bool(bool),
}

impl OptionValue {
    /// The value as text, whatever its spelling.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Number(text) => text.clone(),
            Self::Bool(value) => value.to_string(),
        }
    }
}

/// The options of a statement.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options(Vec<(String, OptionValue)>);

impl Options {
    /// Options in the order written; names are folded to lower case.
    pub fn new(pairs: Vec<(String, OptionValue)>) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect())
    }

    /// The value of `name`, if given.
    pub fn get(&self, name: &str) -> Option<&OptionValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// The text of `name`, if given.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(OptionValue::text)
    }

    /// The length of time `name` in ms, if given: `5 SECONDS`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for anything else.
    pub fn duration_ms(&self, name: &str) -> Result<Option<i64>> {
        let read = |text: String| {
            duration_ms(&text).filter(|ms| *ms > 0).ok_or_else(|| Error::InvalidOption {
                option: name.to_owned(),
                reason: format!("\"{text}\" is not a length of time such as '5 SECONDS'"),
            })
        };
        self.text(name).map(read).transpose()
    }

    /// The positive integer `name`, if given.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for anything else.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| Error::InvalidOption {
                    option: name.to_owned(),
                    reason: format!("\"{text}\" is not an integer"),
                })
            })
            .transpose()
    }

    /// Every (name, value), in the order written.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &OptionValue)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}
