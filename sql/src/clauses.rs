//! Clauses that sqlparser does not know: ksqlDB's `WINDOW …` after FROM, `WITHIN …` in joins,
//! `PARTITION BY …` of a whole query and `EMIT …` at the end, and `ASOF JOIN`.
//!
//! They are cut out of the tokens before parsing and left as marker calls at the head of the
//! select list they belong to, so that spans, nesting and everything else stay sqlparser's.
//! `take_clauses` removes the markers again. Invariant: no marker outlives planning.

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Select, SelectItem, SetExpr, Value,
};
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::error::{Error, Result};
use crate::position;

const WINDOW_MARKER: &str = "__millpond_window";
const EMIT_MARKER: &str = "__millpond_emit";
const WITHIN_MARKER: &str = "__millpond_within";
const PARTITION_MARKER: &str = "__millpond_partition";
const ASOF_MARKER: &str = "__millpond_asof";
/// Words after which PARTITION BY has ended.
const AFTER_PARTITION: [&str; 8] =
    ["EMIT", "HAVING", "LIMIT", "ORDER", "UNION", "INTERSECT", "EXCEPT", "OFFSET"];

/// Units of time, ms.
const UNITS: [(&str, i64); 5] =
    [("millisecond", 1), ("second", 1_000), ("minute", 60_000), ("hour", 3_600_000), ("day", 86_400_000)];

/// The length of `5 SECONDS` in ms.
pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    let (number, unit) = text.trim().split_once(char::is_whitespace)?;
    let unit = unit.trim().to_ascii_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| unit == *name || unit.strip_suffix('s') == Some(name))?;
    number.parse::<i64>().ok()?.checked_mul(*factor)
}

/// When a continuous query shows its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emit {
    /// Every net change.
    Changes,
    /// Once, when the window closes.
    Final,
}

/// The shape of a window. All lengths in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowKind {
    /// Adjacent windows of `size_ms`.
    Tumbling {
        /// Length.
        size_ms: i64,
    },
    /// Windows of `size_ms` that begin every `advance_ms`.
    Hopping {
        /// Length.
        size_ms: i64,
        /// Distance between two beginnings.
        advance_ms: i64,
    },
    /// Rows less than `gap_ms` apart.
    Session {
        /// Longest silence inside a session.
        gap_ms: i64,
    },
}

/// ksqlDB's WINDOW clause.
///
/// Source: ksqlDB, "Time and Windows".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Shape.
    pub kind: WindowKind,
    /// How long after its end a window takes rows; the default depends on the statement.
    pub grace_ms: Option<i64>,
    /// How long a closed window stays readable.
    pub retention_ms: Option<i64>,
}

/// ksqlDB's WITHIN of a join of two streams: how much earlier and later than the left row the right
/// one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Within {
    /// How much earlier, ms.
    pub before_ms: i64,
    /// How much later, ms.
    pub after_ms: i64,
    /// How long after its time has come a row can still be joined, ms.
    pub grace_ms: Option<i64>,
}

/// Replaces the clauses in `tokens` by markers.
///
/// # Errors
/// [`Error::Syntax`] for a clause that is not complete, with its place in `text`.
pub(crate) fn mark(text: &str, tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let words = ["EMIT", "WINDOW", "WITHIN", "PARTITION", "ASOF"];
    if !tokens.iter().any(|t| words.iter().any(|word| word_is(t, word))) {
        return Ok(tokens);
    }
    let mut cursor = Cursor { text, tokens: &tokens, at: 0 };
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut selects: Vec<Option<usize>> = vec![None];
    let mut markers: Vec<(usize, &'static str, String)> = Vec::new();
    let mut asof = AsOf::default();
    while let Some(token) = cursor.peek(0) {
        let clause = match &token.token {
            Token::Word(_) if word_is(token, "EMIT") => cursor.emit().map(|c| (EMIT_MARKER, c)),
            Token::Word(_) if word_is(token, "WINDOW") => cursor.window()?.map(|c| (WINDOW_MARKER, c)),
            // Inside OVER (…) there is no SELECT of its own.
            Token::Word(_) if word_is(token, "PARTITION") && selects.last().is_some_and(Option::is_some) => {
                cursor.partition().map(|c| (PARTITION_MARKER, c))
            }
            _ => None,
        };
        if let Some((marker, clause)) = clause {
            let Some(select) = selects.iter().rev().find_map(|s| *s) else {
                return Err(cursor.error_at(token, "this clause needs a SELECT before it"));
            };
            markers.push((select, marker, clause));
            continue;
        }
        if word_is(token, "WITHIN")
            && let Some(within) = cursor.within()?
        {
            push_on(&mut kept, token.span, WITHIN_MARKER, encode_within(within));
            continue;
        }
        if asof.take(&mut cursor, selects.len(), &mut kept) {
            continue;
        }
        match &token.token {
            Token::LParen => selects.push(None),
            Token::RParen if selects.len() > 1 => {
                selects.pop();
            }
            Token::Word(w) if w.keyword == Keyword::SELECT => {
                if let Some(top) = selects.last_mut() {
                    *top = Some(kept.len());
                }
            }
            _ => {}
        }
        kept.push(token.clone());
        cursor.at += 1;
    }
    Ok(insert_markers(kept, markers))
}

fn insert_markers(
    tokens: Vec<TokenWithSpan>,
    mut markers: Vec<(usize, &'static str, String)>,
) -> Vec<TokenWithSpan> {
    markers.sort_by_key(|m| m.0);
    let mut out = Vec::with_capacity(tokens.len() + markers.len() * 5);
    let mut pending = markers.into_iter().peekable();
    let mut due: Vec<(&'static str, String)> = Vec::new();
    for (index, token) in tokens.into_iter().enumerate() {
        let quantifier = word_is(&token, "DISTINCT") || word_is(&token, "ALL");
        if !due.is_empty() && !quantifier {
            for (name, value) in due.drain(..) {
                push_marker(&mut out, token.span, name, value);
            }
        }
        out.push(token);
        while let Some((_, name, value)) = pending.next_if(|m| m.0 == index) {
            due.push((name, value));
        }
    }
    out
}

fn push_marker(out: &mut Vec<TokenWithSpan>, span: Span, name: &str, value: String) {
    let word = Word { value: name.to_owned(), quote_style: None, keyword: Keyword::NoKeyword };
    for token in
        [Token::Word(word), Token::LParen, Token::SingleQuotedString(value), Token::RParen, Token::Comma]
    {
        out.push(TokenWithSpan::new(token, span));
    }
}

/// The joins `ASOF` whose condition has not come yet.
#[derive(Default)]
struct AsOf {
    /// How deep each is nested, and whether its MATCH_CONDITION has come.
    open: Vec<(usize, bool)>,
}

impl AsOf {
    /// Takes a token that belongs to such a join: `ASOF [LEFT] JOIN … ON …`, and MATCH_CONDITION (…)
    /// before ON, which is one more condition.
    fn take(&mut self, cursor: &mut Cursor<'_>, depth: usize, out: &mut Vec<TokenWithSpan>) -> bool {
        let Some(token) = cursor.peek(0) else { return false };
        let joins = ["JOIN", "LEFT", "INNER"];
        if word_is(token, "ASOF")
            && cursor.solid(1).is_some_and(|(_, next)| joins.iter().any(|j| word_is(next, j)))
        {
            self.open.push((depth, false));
            cursor.at += 1;
            return true;
        }
        let Some((at, matched)) = self.open.last_mut() else { return false };
        if *at != depth {
            return false;
        }
        if word_is(token, "MATCH_CONDITION") {
            *matched = true;
            push_on(out, token.span, ASOF_MARKER, String::new());
        } else if word_is(token, "ON") {
            match *matched {
                true => out.push(TokenWithSpan::new(keyword("AND", Keyword::AND), token.span)),
                false => push_on(out, token.span, ASOF_MARKER, String::new()),
            }
            self.open.pop();
        } else {
            return false;
        }
        cursor.at += 1;
        true
    }
}

fn keyword(value: &str, keyword: Keyword) -> Token {
    Token::Word(Word { value: value.to_owned(), quote_style: None, keyword })
}

fn encode_within(within: Within) -> String {
    let grace = within.grace_ms.map_or_else(|| "-".to_owned(), |grace| grace.to_string());
    format!("{},{},{grace}", within.before_ms, within.after_ms)
}

/// `ON` with the clause as the first of its conditions.
fn push_on(out: &mut Vec<TokenWithSpan>, span: Span, marker: &str, value: String) {
    for token in [
        keyword("ON", Keyword::ON),
        keyword(marker, Keyword::NoKeyword),
        Token::LParen,
        Token::SingleQuotedString(value),
        Token::RParen,
        keyword("AND", Keyword::AND),
    ] {
        out.push(TokenWithSpan::new(token, span));
    }
}

/// Takes the WITHIN clause off a join's condition.
///
/// # Errors
/// When the rest of the condition is an OR without parentheses.
pub fn take_within(condition: &mut Expr) -> Result<Option<Within>> {
    Ok(take_from_condition(condition, WITHIN_MARKER)?.and_then(|value| decode_within(&value)))
}

/// Takes ASOF off a join's condition; whether it was there.
///
/// # Errors
/// As [`take_within`].
pub fn take_asof(condition: &mut Expr) -> Result<bool> {
    Ok(take_from_condition(condition, ASOF_MARKER)?.is_some())
}

fn take_from_condition(condition: &mut Expr, wanted: &str) -> Result<Option<String>> {
    match condition {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            if let Some((_, value)) = marker_of(left).filter(|(name, _)| name == wanted) {
                *condition = right.as_ref().clone();
                return Ok(Some(value));
            }
            take_from_condition(left, wanted)
        }
        Expr::BinaryOp { left, op: BinaryOperator::Or, .. } => match take_from_condition(left, wanted)? {
            None => Ok(None),
            Some(_) => Err(Error::Syntax {
                message: "syntax error: the condition of this join needs parentheses around OR".into(),
                position: 0,
                hint: None,
            }),
        },
        _ => Ok(None),
    }
}

fn decode_within(value: &str) -> Option<Within> {
    let [before, after, grace] = value.split(',').collect::<Vec<_>>()[..] else { return None };
    Some(Within {
        before_ms: before.parse().ok()?,
        after_ms: after.parse().ok()?,
        grace_ms: grace.parse().ok(),
    })
}

/// The clauses of one SELECT.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Clauses {
    /// EMIT.
    pub emit: Option<Emit>,
    /// WINDOW.
    pub window: Option<Window>,
    /// What stands behind PARTITION BY.
    pub partition_by: Option<String>,
}

/// Takes the clauses of one SELECT off its select list.
pub fn take_clauses(select: &mut Select) -> Clauses {
    let mut clauses = Clauses::default();
    while let Some((name, value)) = select.projection.first().and_then(marker) {
        match name.as_str() {
            EMIT_MARKER => clauses.emit = Some(decode_emit(&value)),
            PARTITION_MARKER => clauses.partition_by = Some(value),
            _ => clauses.window = decode_window(&value),
        }
        select.projection.remove(0);
    }
    clauses
}

fn decode_emit(value: &str) -> Emit {
    if value == "final" { Emit::Final } else { Emit::Changes }
}

/// Takes EMIT off a query's outermost SELECT, leaving its other clauses where they are.
pub(crate) fn take_emit(body: &mut SetExpr) -> Option<Emit> {
    match body {
        SetExpr::Select(select) => {
            let markers = select.projection.iter().map_while(marker);
            let (at, value) = markers
                .enumerate()
                .find_map(|(at, (name, value))| (name == EMIT_MARKER).then_some((at, value)))?;
            select.projection.remove(at);
            Some(decode_emit(&value))
        }
        SetExpr::Query(query) => take_emit(&mut query.body),
        SetExpr::SetOperation { right, .. } => take_emit(right),
        _ => None,
    }
}

fn marker(item: &SelectItem) -> Option<(String, String)> {
    match item {
        SelectItem::UnnamedExpr(expr) => marker_of(expr),
        _ => None,
    }
}

fn marker_of(expr: &Expr) -> Option<(String, String)> {
    let Expr::Function(function) = expr else { return None };
    let name = function.name.to_string();
    if ![WINDOW_MARKER, EMIT_MARKER, WITHIN_MARKER, PARTITION_MARKER, ASOF_MARKER].contains(&name.as_str()) {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.first() {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value)))) => match &value.value {
            Value::SingleQuotedString(text) => Some((name, text.clone())),
            _ => None,
        },
        _ => None,
    }
}

fn encode_window(window: &Window) -> String {
    let (kind, a, b) = match window.kind {
        WindowKind::Tumbling { size_ms } => ("tumbling", size_ms, 0),
        WindowKind::Hopping { size_ms, advance_ms } => ("hopping", size_ms, advance_ms),
        WindowKind::Session { gap_ms } => ("session", gap_ms, 0),
    };
    let optional = |v: Option<i64>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
    format!("{kind} {a} {b} {} {}", optional(window.grace_ms), optional(window.retention_ms))
}

fn decode_window(text: &str) -> Option<Window> {
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, a, b, grace, retention] = parts.as_slice() else { return None };
    let (a, b) = (a.parse().ok()?, b.parse().ok()?);
    let kind = match *kind {
        "tumbling" => WindowKind::Tumbling { size_ms: a },
        "hopping" => WindowKind::Hopping { size_ms: a, advance_ms: b },
        _ => WindowKind::Session { gap_ms: a },
    };
    Some(Window { kind, grace_ms: grace.parse().ok(), retention_ms: retention.parse().ok() })
}

/// Whether a token is the unquoted word `word`.
pub(crate) fn word_is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// Reads one clause from the tokens.
struct Cursor<'a> {
    text: &'a str,
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The n-th token from here that is not white space, with the index after it.
    fn solid(&self, n: usize) -> Option<(usize, &'a TokenWithSpan)> {
        self.tokens
            .iter()
            .enumerate()
            .skip(self.at)
            .filter(|(_, t)| !matches!(t.token, Token::Whitespace(_)))
            .nth(n)
            .map(|(i, t)| (i + 1, t))
    }

    fn peek(&self, n: usize) -> Option<&'a TokenWithSpan> {
        self.tokens.get(self.at + n)
    }

    fn take(&mut self) -> Option<&'a TokenWithSpan> {
        let (next, token) = self.solid(0)?;
        self.at = next;
        Some(token)
    }

    fn take_word(&mut self, word: &str) -> bool {
        match self.solid(0) {
            Some((next, token)) if word_is(token, word) => {
                self.at = next;
                true
            }
            _ => false,
        }
    }

    fn error(&self, message: &str) -> Error {
        let location = self.solid(0).map(|(_, t)| t.span.start);
        Error::Syntax {
            message: format!("syntax error: {message}"),
            position: location.map_or(0, |l| position::of(self.text, l)),
            hint: None,
        }
    }

    fn error_at(&self, token: &TokenWithSpan, message: &str) -> Error {
        Error::Syntax {
            message: format!("syntax error: {message}"),
            position: position::of(self.text, token.span.start),
            hint: None,
        }
    }

    fn emit(&mut self) -> Option<String> {
        let (next, kind) = self.solid(1)?;
        let name = ["changes", "final"].into_iter().find(|name| word_is(kind, name))?;
        self.at = next;
        Some(name.to_owned())
    }

    /// `PARTITION BY …` up to the next clause: its text.
    fn partition(&mut self) -> Option<String> {
        let (from, _) = self.solid(1).filter(|(_, by)| word_is(by, "BY"))?;
        let (mut depth, mut end) = (0usize, from);
        while let Some(token) = self.tokens.get(end) {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                _ if depth == 0 && AFTER_PARTITION.iter().any(|word| word_is(token, word)) => break,
                _ => {}
            }
            end += 1;
        }
        let text: Vec<String> = self.tokens[from..end].iter().map(|t| t.token.to_string()).collect();
        self.at = end;
        Some(text.join(" "))
    }

    /// `WINDOW [name] TUMBLING|HOPPING|SESSION (…)`; None when it is SQL's own WINDOW clause.
    fn window(&mut self) -> Result<Option<String>> {
        let kinds = ["tumbling", "hopping", "session"];
        let kind_at = |n: usize| {
            let (next, token) = self.solid(n)?;
            kinds.into_iter().find(|kind| word_is(token, kind)).map(|kind| (next, kind))
        };
        let Some((next, kind)) = kind_at(1).or_else(|| kind_at(2)) else { return Ok(None) };
        self.at = next;
        self.expect(&Token::LParen, "expected ( after the kind of window")?;
        let window = self.window_body(kind)?;
        self.expect(&Token::RParen, "expected ) at the end of the window")?;
        Ok(Some(encode_window(&window)))
    }

    /// `WITHIN n UNIT | (n UNIT, n UNIT) [GRACE PERIOD n UNIT] ON`; None when it is SQL's WITHIN GROUP.
    fn within(&mut self) -> Result<Option<Within>> {
        let Some((next, first)) = self.solid(1) else { return Ok(None) };
        let mut within = match &first.token {
            Token::LParen => {
                self.at = next;
                let before_ms = self.duration()?;
                self.expect(&Token::Comma, "expected a comma between the two lengths")?;
                let after_ms = self.duration()?;
                self.expect(&Token::RParen, "expected ) after the two lengths")?;
                Within { before_ms, after_ms, grace_ms: None }
            }
            Token::Number(..) => {
                self.at += 1;
                let length = self.duration()?;
                Within { before_ms: length, after_ms: length, grace_ms: None }
            }
            _ => return Ok(None),
        };
        if self.take_word("grace") {
            self.take_word("period");
            within.grace_ms = Some(self.duration()?);
        }
        if self.take_word("on") { Ok(Some(within)) } else { Err(self.error("expected ON after WITHIN")) }
    }

    fn window_body(&mut self, kind: &str) -> Result<Window> {
        let (mut size, mut advance, mut grace, mut retention) = (None, None, None, None);
        if kind == "session" {
            size = Some(self.duration()?);
        }
        loop {
            if kind != "session" && self.take_word("size") {
                size = Some(self.duration()?);
            } else if kind == "hopping" && self.take_word("advance") {
                self.take_word("by");
                advance = Some(self.duration()?);
            } else if self.take_word("grace") {
                self.take_word("period");
                grace = Some(self.duration()?);
            } else if self.take_word("retention") {
                retention = Some(self.duration()?);
            }
            match self.solid(0) {
                Some((next, token)) if token.token == Token::Comma => self.at = next,
                _ => break,
            }
        }
        let size_ms = size.ok_or_else(|| self.error("expected SIZE and a length"))?;
        let kind = match kind {
            "tumbling" => WindowKind::Tumbling { size_ms },
            "hopping" => WindowKind::Hopping {
                size_ms,
                advance_ms: advance.ok_or_else(|| self.error("expected ADVANCE BY and a length"))?,
            },
            _ => WindowKind::Session { gap_ms: size_ms },
        };
        Ok(Window { kind, grace_ms: grace, retention_ms: retention })
    }

    fn duration(&mut self) -> Result<i64> {
        let number = match self.take().map(|t| &t.token) {
            Some(Token::Number(number, _)) => number.parse::<i64>().ok(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.error("expected a whole number"))?;
        let unit = self.take().ok_or_else(|| self.error("expected a unit of time"))?;
        let factor = UNITS
            .iter()
            .find(|(name, _)| word_is(unit, name) || word_is(unit, &format!("{name}s")))
            .map(|(_, factor)| *factor)
            .ok_or_else(|| self.error_at(unit, "expected MILLISECONDS, SECONDS, MINUTES, HOURS or DAYS"))?;
        number.checked_mul(factor).ok_or_else(|| self.error_at(unit, "this length of time is out of range"))
    }

    fn expect(&mut self, token: &Token, message: &str) -> Result<()> {
        match self.solid(0) {
            Some((next, found)) if found.token == *token => {
                self.at = next;
                Ok(())
            }
            _ => Err(self.error(message)),
        }
    }
}
