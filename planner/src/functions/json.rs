//! JSON kept as text: read, taken apart and put together.
//!
//! Invariant: what is taken out of a text stands as it stood there, numbers digit by digit; only jsonb has a
//! form of its own. Source: PostgreSQL, "JSON Functions and Operators"; ksqlDB, "Scalar functions".

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

/// Members of an object, in their order.
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// The members of an object; None for anything else.
pub(super) fn members(json: &str) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(json).ok().map(|members| members.0)
}

/// The elements of an array; None for anything else.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    serde_json::from_str(json).ok()
}

/// The member of a name; of several the last.
pub(super) fn member<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    members(json)?.into_iter().rev().find(|(member, _)| member == name).map(|(_, value)| value.get())
}

/// The element at an index from 0 on; below 0 from the end.
pub(super) fn element(json: &str, index: i64) -> Option<&str> {
    let elements = elements(json)?;
    let length = i64::try_from(elements.len()).ok()?;
    let index = usize::try_from(if index < 0 { index + length } else { index }).ok()?;
    elements.get(index).map(|element| element.get())
}

/// The value at the end of a path of names and indices.
pub(super) fn at_path<'a>(json: &'a str, path: &[&str]) -> Option<&'a str> {
    path.iter().try_fold(json, |json, step| match json.trim_start().as_bytes().first()? {
        b'[' => element(json, step.parse().ok()?),
        _ => member(json, step),
    })
}

/// A value as text: a string without its quotes, None for null.
pub(super) fn content(json: &str) -> Option<String> {
    match json.trim().as_bytes().first()? {
        b'n' => None,
        b'"' => serde_json::from_str(json).ok(),
        _ => Some(json.trim().to_owned()),
    }
}

/// What kind of value it is, as PostgreSQL calls it.
pub(super) fn kind(json: &str) -> Option<&'static str> {
    Some(match json.trim_start().as_bytes().first()? {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "boolean",
        b'n' => "null",
        _ => "number",
    })
}

/// Whether a text is JSON.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Whether `outer` contains `inner`: each member and each element of it, at any depth.
pub(super) fn contains(outer: &Value, inner: &Value) -> bool {
    match (outer, inner) {
        (Value::Object(outer), Value::Object(inner)) => inner
            .iter()
            .all(|(name, value)| outer.get(name).is_some_and(|of_outer| contains(of_outer, value))),
        (Value::Array(outer), Value::Array(inner)) => {
            inner.iter().all(|value| outer.iter().any(|of_outer| contains(of_outer, value)))
        }
        // An array contains a value that is no array or object.
        (Value::Array(outer), value) if !value.is_object() => outer.contains(value),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (outer, inner) => outer == inner,
    }
}

/// The one form that jsonb has for a value: no space but behind commas and colons, members by the length of
/// their names and then by name, of equal names the last.
///
/// # Errors
/// Why the text is no JSON.
pub(super) fn jsonb_text(json: &str) -> Result<String, String> {
    // What is nested deeper than serde_json goes is refused here.
    let raw: &RawValue = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let mut out = String::with_capacity(json.len());
    write_jsonb(raw.get(), &mut out);
    Ok(out)
}

fn write_jsonb(json: &str, out: &mut String) {
    let json = json.trim();
    if let Some(mut members) = members(json) {
        members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        let last = |i: usize| members.get(i + 1).is_none_or(|next| next.0 != members[i].0);
        out.push('{');
        let mut first = true;
        for (_, (name, value)) in members.iter().enumerate().filter(|(i, _)| last(*i)) {
            out.push_str(if first { "" } else { ", " });
            first = false;
            out.push_str(&quoted(name));
            out.push_str(": ");
            write_jsonb(value.get(), out);
        }
        out.push('}');
    } else if let Some(elements) = elements(json) {
        out.push('[');
        for (index, element) in elements.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { ", " });
            write_jsonb(element.get(), out);
        }
        out.push(']');
    } else if json.starts_with('"') {
        out.push_str(&serde_json::from_str::<String>(json).map_or_else(|_| json.to_owned(), |s| quoted(&s)));
    } else {
        out.push_str(&number(json));
    }
}

/// A text as JSON writes it.
pub(super) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A number without exponent, digit by digit; what is no number stays.
fn number(json: &str) -> String {
    let Some((mantissa, exponent)) = json.split_once(['e', 'E']) else { return json.to_owned() };
    let Ok(exponent) = exponent.parse::<i32>() else { return json.to_owned() };
    // Beyond this it would be a text of zeros.
    if exponent.abs() > 400 {
        return json.to_owned();
    }
    let (sign, digits) = mantissa.strip_prefix('-').map_or(("", mantissa), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all = format!("{whole}{fraction}");
    let mut point = i32::try_from(whole.len()).unwrap_or(i32::MAX) + exponent;
    while point <= 0 {
        all.insert(0, '0');
        point += 1;
    }
    let point = usize::try_from(point).unwrap_or(0);
    while all.len() < point {
        all.push('0');
    }
    let (whole, fraction) = all.split_at(point);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The same value without the spaces between its parts.
pub(super) fn compact(json: &str) -> String {
    let (mut out, mut inside, mut escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if inside || !c.is_ascii_whitespace() {
            out.push(c);
        }
        let quote = c == '"' && !escaped;
        escaped = inside && c == '\\' && !escaped;
        inside ^= quote;
    }
    out
}

/// Objects become one, of equal members the last; arrays one after the other; anything else an array of all.
pub(super) fn concat(parts: &[&str]) -> Option<String> {
    if let Some(objects) = parts.iter().map(|p| members(p)).collect::<Option<Vec<_>>>() {
        let mut all: Vec<(String, &RawValue)> = Vec::new();
        for (name, value) in objects.into_iter().flatten() {
            match all.iter_mut().find(|(other, _)| *other == name) {
                Some(other) => other.1 = value,
                None => all.push((name, value)),
            }
        }
        let all: Vec<String> =
            all.iter().map(|(name, value)| format!("{}:{}", quoted(name), compact(value.get()))).collect();
        return Some(format!("{{{}}}", all.join(",")));
    }
    let mut all = Vec::new();
    for part in parts {
        match elements(part) {
            Some(elements) => all.extend(elements.into_iter().map(|e| compact(e.get()))),
            None if is_json(part) => all.push(compact(part)),
            None => return None,
        }
    }
    Some(format!("[{}]", all.join(",")))
}

/// Puts a value at the end of a path of names and indices; nothing where the path leads nowhere. One that is not
/// there is added if `adds`.
pub(super) fn set(json: &mut Value, path: &[&str], value: Value, adds: bool) {
    let Some((step, rest)) = path.split_first() else { return };
    let place = match json {
        Value::Object(members) => match (members.contains_key(*step), rest) {
            (false, []) if adds => {
                members.insert((*step).to_owned(), value);
                return;
            }
            _ => members.get_mut(*step),
        },
        Value::Array(elements) => {
            let (Ok(index), Ok(length)) = (step.parse::<i64>(), i64::try_from(elements.len())) else {
                return;
            };
            let at = if index < 0 { index + length } else { index };
            match usize::try_from(at) {
                Ok(at) if at < elements.len() => elements.get_mut(at),
                _ if rest.is_empty() && adds => {
                    let at = if at < 0 { 0 } else { elements.len() };
                    elements.insert(at, value);
                    return;
                }
                _ => None,
            }
        }
        _ => None,
    };
    match (place, rest) {
        (Some(place), []) => *place = value,
        (Some(place), rest) => set(place, rest, value, adds),
        (None, _) => {}
    }
}

/// ksqlDB's path `$.a.b[0]['c']`; None for a text that is none.
pub(super) fn path(text: &str) -> Option<Vec<&str>> {
    let mut rest = text.strip_prefix('$')?;
    let mut path = Vec::new();
    while !rest.is_empty() {
        let (step, after) = if let Some(quoted) = rest.strip_prefix("['") {
            quoted.split_once("']")?
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, after) = index.split_once(']')?;
            (Some(index).filter(|index| !index.starts_with('-'))?, after)
        } else {
            let name = rest.strip_prefix('.')?;
            name.split_at(name.find(['.', '[']).unwrap_or(name.len()))
        };
        path.push(step);
        rest = after;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jsonb_has_one_form() {
        let of = |json| jsonb_text(json);
        assert_eq!(of(r#" {"bb":1, "a" : [1,null, "x\u0041"],"a":{}} "#), Ok(r#"{"a": {}, "bb": 1}"#.into()));
        assert_eq!(of("[1.50,1e2,-1.5e-3,12E1]"), Ok("[1.50, 100, -0.0015, 120]".into()));
        assert_eq!(of(r#""A\n""#), Ok(r#""A\n""#.into()));
        assert!(of("{").is_err());
        assert_eq!(compact(r#" { "a b" : "\" x" , "c":[1, 2] }"#), r#"{"a b":"\" x","c":[1,2]}"#);
    }

    #[test]
    fn paths_lead_to_values() {
        let json = r#"{"a":[{"b c":"x"},2]}"#;
        let at = |text| path(text).and_then(|path| at_path(json, &path));
        assert_eq!(at("$.a[0]['b c']"), Some("\"x\""));
        assert_eq!(at("$.a[1]"), Some("2"));
        assert_eq!(at("$.a[-1]"), None);
        assert_eq!(at("$.a.b"), None);
        assert_eq!(at("a"), None);
    }

    #[test]
    fn what_contains_what() {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let holds = |a: &str, b: &str| contains(&value(a), &value(b));
        assert!(holds(r#"{"a":[1,2],"b":1}"#, r#"{"a":[2]}"#));
        assert!(holds("[1,[2]]", "[[2]]") && holds("[1,2]", "1"));
        assert!(!holds("[[1]]", "1") && !holds("{}", r#"{"a":1}"#));
    }
}
