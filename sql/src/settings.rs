//! Names of settings: PostgreSQL's are identifiers, ksqlDB's are quoted strings with dots.

/// The name under which a setting is kept: lower case, quotes gone.
pub fn normalize_setting(name: &str) -> String {
    name.trim_matches(['\'', '"', '`']).to_ascii_lowercase()
}
