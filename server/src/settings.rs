//! Settings of a session: PostgreSQL's that clients set, and our own.
//!
//! One table says name, default, whether a client is told when it changes, and what it is for.
//! Source: PostgreSQL, "Server Configuration".

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use datafusion::arrow::datatypes::Field;

use crate::pg::WireError;

/// A setting.
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its value until set.
    pub default: &'static str,
    /// Reported to the client as ParameterStatus.
    pub reported: bool,
    /// What it does; empty for those accepted because clients send them.
    pub doc: &'static str,
}

impl Setting {
    /// Whether nobody can change it.
    pub(crate) fn is_fixed(&self) -> bool {
        self.name.starts_with("server_")
            || matches!(
                self.name,
                "in_hot_standby" | "integer_datetimes" | "is_superuser" | "max_identifier_length"
            )
    }
}

const fn own(name: &'static str, default: &'static str, doc: &'static str) -> Setting {
    Setting { name, default, reported: false, doc }
}

const fn reported(name: &'static str, default: &'static str) -> Setting {
    Setting { name, default, reported: true, doc: "" }
}

const fn accepted(name: &'static str, default: &'static str) -> Setting {
    Setting { name, default, reported: false, doc: "" }
}

/// Whether a query may see some rows only, where policies say which.
pub(crate) const ROW_SECURITY: &str = "row_security";

/// The version of PostgreSQL whose behaviour clients may expect.
pub const SERVER_VERSION: &str = "16.6";

/// That of the transaction there is; until it is set, the default one.
pub(crate) const TRANSACTION_ISOLATION: &str = "transaction_isolation";

/// All settings, sorted by name.
pub const SETTINGS: &[Setting] = &[
    reported("application_name", ""),
    accepted("autovacuum_analyze_scale_factor", "0.1"),
    accepted("autovacuum_analyze_threshold", "50"),
    accepted("autovacuum_freeze_max_age", "200000000"),
    accepted("autovacuum_vacuum_cost_delay", "2"),
    accepted("autovacuum_vacuum_cost_limit", "-1"),
    accepted("autovacuum_vacuum_scale_factor", "0.2"),
    accepted("autovacuum_vacuum_threshold", "50"),
    accepted("bytea_output", "hex"),
    reported("client_encoding", "UTF8"),
    accepted("client_min_messages", "notice"),
    reported("datestyle", "ISO, MDY"),
    accepted("default_table_access_method", "heap"),
    accepted("default_tablespace", ""),
    accepted("default_transaction_isolation", "read committed"),
    accepted("default_transaction_read_only", "off"),
    accepted("extra_float_digits", "1"),
    accepted("idle_in_transaction_session_timeout", "0"),
    reported("in_hot_standby", "off"),
    reported("integer_datetimes", "on"),
    reported("intervalstyle", "postgres"),
    reported("is_superuser", "on"),
    accepted("jit", "off"),
    accepted("lock_timeout", "0"),
    accepted("lc_collate", "C.UTF-8"),
    accepted("lc_ctype", "C.UTF-8"),
    accepted("max_identifier_length", "63"),
    accepted("max_index_keys", "32"),
    own("read_timeout", "60s", "How long a SELECT waits for a view to hold the session's own writes."),
    own(ROW_SECURITY, "on", "Off: a query that would see only some rows of a relation is an error."),
    accepted("search_path", "\"$user\", public"),
    reported("server_encoding", "UTF8"),
    reported("server_version", SERVER_VERSION),
    accepted("server_version_num", "160006"),
    reported("session_authorization", "millpond"),
    reported("standard_conforming_strings", "on"),
    own("statement_timeout", "0", "Longest time for one statement; 0 is no limit. Push queries are exempt."),
    accepted("synchronize_seqscans", "on"),
    reported("timezone", "UTC"),
    // Any level gives what repeatable read promises: a transaction reads one epoch.
    accepted(TRANSACTION_ISOLATION, "read committed"),
    accepted("transaction_read_only", "off"),
    accepted("xmloption", "content"),
];

/// One session's values.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    changed: BTreeMap<String, String>,
    /// What is so for whoever has connected, and is not changed.
    own: BTreeMap<&'static str, String>,
    /// Reported settings that the client has not been told of since they changed.
    untold: BTreeSet<&'static str>,
}

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

impl Settings {
    /// The value of a setting.
    ///
    /// # Errors
    /// 42704 for a name that is no setting.
    pub fn get(&self, name: &str) -> Result<String, WireError> {
        match self.own.get(name).or_else(|| self.changed.get(name)) {
            Some(value) => Ok(value.clone()),
            None if name == TRANSACTION_ISOLATION => self.get("default_transaction_isolation"),
            None => find(name).map(|s| s.default.to_owned()).ok_or_else(|| unknown(name)),
        }
    }

    /// Whose settings they are.
    pub(crate) fn belong_to(&mut self, user: &str, superuser: bool) {
        let superuser = if superuser { "on" } else { "off" };
        self.own = BTreeMap::from([
            ("session_authorization", user.to_owned()),
            ("is_superuser", superuser.to_owned()),
        ]);
    }

    /// Sets a setting, or with None back to its default. True when it has a meaning here.
    ///
    /// # Errors
    /// 42704, 22023.
    pub fn set(&mut self, name: &str, value: Option<String>) -> Result<bool, WireError> {
        // ksqlDB's settings steer Kafka Streams, which is not here; PostgreSQL takes names with a dot.
        let foreign = name.starts_with("ksql.") || name.starts_with("auto.") || name.contains('.');
        if find(name).is_none() && !foreign {
            return Err(unknown(name));
        }
        if name.ends_with("_timeout")
            && let Some(value) = &value
            && parse_duration(value).is_none()
        {
            return Err(WireError::new(
                "22023",
                format!("invalid value for parameter \"{name}\": \"{value}\""),
            ));
        }
        let value = match value {
            Some(value) if name == "client_encoding" => Some(encoding(&value)?),
            Some(value) if name == "timezone" => Some(time_zone(&value)?),
            Some(value) if name == "datestyle" => Some(date_style(&value)?),
            value => value,
        };
        let before = match value {
            Some(value) => self.changed.insert(name.to_owned(), value),
            None => self.changed.remove(name),
        };
        if let Some(setting) = find(name).filter(|s| s.reported)
            && before.as_ref() != self.changed.get(name)
        {
            self.untold.insert(setting.name);
        }
        Ok(find(name).is_some())
    }

    /// Name and value of each reported setting that changed since the last call.
    pub fn take_reports(&mut self) -> Vec<(&'static str, String)> {
        let untold = std::mem::take(&mut self.untold);
        untold.into_iter().map(|name| (display_name(name), self.get(name).unwrap_or_default())).collect()
    }

    /// Back to the defaults.
    pub fn reset(&mut self) {
        let reported = SETTINGS.iter().filter(|s| s.reported && self.changed.contains_key(s.name));
        self.untold.extend(reported.map(|s| s.name));
        self.changed.clear();
    }

    /// A length of time; None for no limit.
    pub fn milliseconds(&self, name: &str) -> Option<Duration> {
        self.get(name).ok().and_then(|v| parse_duration(&v)).filter(|d| !d.is_zero())
    }

    /// The time zone of questions and answers, where it is not UTC.
    pub fn time_zone(&self) -> Option<&str> {
        let zone = self.changed.get("timezone")?;
        (!is_utc(zone)).then_some(zone)
    }

    /// A field as it is in the time zone.
    pub fn in_zone(&self, field: Field) -> Field {
        match self.time_zone() {
            Some(zone) => planner::field_in_zone(&field, zone),
            None => field,
        }
    }

    /// Every setting with its value.
    pub fn all(&self) -> impl Iterator<Item = (&'static Setting, String)> + '_ {
        SETTINGS.iter().map(|s| (s, self.get(s.name).unwrap_or_else(|_| s.default.to_owned())))
    }
}

/// PostgreSQL's spelling of a length of time: a number of milliseconds, or a number with a unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].trim() {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(factor)?))
}

/// The one encoding there is, however it is written.
fn encoding(value: &str) -> Result<String, WireError> {
    let plain: String = value.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_uppercase();
    if matches!(plain.as_str(), "UTF8" | "UNICODE" | "SQLASCII") {
        return Ok("UTF8".to_owned());
    }
    let message = format!("invalid value for parameter \"client_encoding\": \"{value}\"");
    Err(WireError::new("22023", message).hint("Texts are UTF8 here."))
}

/// A date style as it is shown. Times are written in ISO's, whatever the order of days and months.
fn date_style(value: &str) -> Result<String, WireError> {
    let mut order = "MDY";
    for word in value.split(',').map(|word| word.trim().to_ascii_uppercase()) {
        match word.as_str() {
            "ISO" | "DEFAULT" => {}
            "MDY" | "US" | "NONEURO" | "NONEUROPEAN" => order = "MDY",
            "DMY" | "EURO" | "EUROPEAN" => order = "DMY",
            "YMD" => order = "YMD",
            "SQL" | "POSTGRES" | "GERMAN" => {
                let hint = "Dates are written in ISO style; to_char() writes them in any other.";
                return Err(WireError::unsupported(format!("the date style \"{value}\"")).hint(hint));
            }
            _ => {
                let message = format!("invalid value for parameter \"DateStyle\": \"{value}\"");
                return Err(WireError::new("22023", message));
            }
        }
    }
    Ok(format!("ISO, {order}"))
}

fn is_utc(zone: &str) -> bool {
    matches!(zone.to_ascii_uppercase().as_str(), "UTC" | "ETC/UTC" | "GMT" | "Z")
}

/// A time zone as it is shown: a name of the IANA database, or an offset east of Greenwich, which a number of hours is
/// and POSIX's `GMT-02:00`, where the sign says what to add to have Greenwich's time.
fn time_zone(value: &str) -> Result<String, WireError> {
    let value = value.trim();
    let posix = ["GMT", "UTC"].iter().find_map(|name| {
        let (head, offset) = value.split_at_checked(name.len())?;
        head.eq_ignore_ascii_case(name).then(|| minutes(offset)).flatten()
    });
    let hours = value.parse::<f64>().ok().filter(|hours| hours.abs() < 24.0);
    #[allow(clippy::cast_possible_truncation, reason = "less than a day")]
    let east = hours.map(|hours| (hours * 60.0).round() as i64).or(posix.map(|west| -west));
    let zone = match east {
        Some(minutes) => {
            let sign = if minutes < 0 { '-' } else { '+' };
            format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
        }
        None if is_utc(value) || value.eq_ignore_ascii_case("local") => "UTC".to_owned(),
        None => value.to_owned(),
    };
    let invalid =
        || WireError::new("22023", format!("invalid value for parameter \"TimeZone\": \"{value}\""));
    planner::zone_name(&zone).ok_or_else(invalid)
}

/// Minutes of `+2`, `-02:30`.
fn minutes(offset: &str) -> Option<i64> {
    let sign = match offset.chars().next()? {
        '+' => 1,
        '-' => -1,
        _ => return None,
    };
    let (hours, minutes) = offset[1..].split_once(':').unwrap_or((&offset[1..], "0"));
    let number = |text: &str, most: i64| text.parse::<i64>().ok().filter(|n| (0..=most).contains(n));
    Some(sign * (number(hours, 23)? * 60 + number(minutes, 59)?))
}

fn unknown(name: &str) -> WireError {
    WireError::new("42704", format!("unrecognized configuration parameter \"{name}\""))
}

/// How PostgreSQL writes the names of reported settings.
pub fn display_name(name: &str) -> &str {
    match name {
        "datestyle" => "DateStyle",
        "intervalstyle" => "IntervalStyle",
        "timezone" => "TimeZone",
        other => other,
    }
}
