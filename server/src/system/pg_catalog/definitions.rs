//! Objects by their ids and names: what an id names, the text of what it is.

use planner::{Catalog, Relation};

use super::objects::oid;
use super::{FIRST_OID, INDEX_OFFSET, NAMESPACES, shapes, types};

/// The name of a column of an index, by its number from 1 on.
pub(in super::super) fn index_column(catalog: &Catalog, id: i64, number: i64) -> Option<String> {
    let relation = catalog.by_id(u32::try_from(id - INDEX_OFFSET - FIRST_OID).ok()?)?;
    let key = relation.key.get(usize::try_from(number).ok()?.checked_sub(1)?)?;
    Some(relation.columns[*key].name.clone())
}

/// What [`definition`] is asked for.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Definition {
    Index,
    Constraint,
    View,
    /// The name of a relation, an index or a constraint.
    Name,
}

/// PostgreSQL's text for what an object id names: an index, a constraint or a view's query.
pub(in super::super) fn definition(catalog: &Catalog, what: Definition, id: i64) -> Option<String> {
    let relation_of = |oid: i64| catalog.by_id(u32::try_from(oid - FIRST_OID).ok()?);
    let keys = |r: &Relation| r.key.iter().map(|k| r.columns[*k].name.clone()).collect::<Vec<_>>().join(", ");
    match what {
        Definition::Index => {
            let r = relation_of(id - INDEX_OFFSET)?;
            Some(format!("CREATE UNIQUE INDEX {0}_pkey ON public.{0} USING btree ({1})", r.name, keys(r)))
        }
        Definition::Constraint => {
            Some(format!("PRIMARY KEY ({})", keys(relation_of(id - 2 * INDEX_OFFSET)?)))
        }
        Definition::View => {
            let r = relation_of(id)?;
            let text = r.text[query_at(&r.text)?..].trim();
            // Tools look for the keyword as PostgreSQL prints it.
            let body = text.strip_prefix("select").map(|rest| format!("SELECT{rest}"));
            Some(format!(" {};", in_lines(body.as_deref().unwrap_or(text))))
        }
        Definition::Name => match relation_of(id).or_else(|| relation_of(id - INDEX_OFFSET)) {
            Some(r) if id < INDEX_OFFSET => Some(r.name.clone()),
            Some(r) => Some(format!("{}_pkey", r.name)),
            None => shapes::all().find(|shape| shape.oid == id).map(|shape| shape.name.to_owned()),
        },
    }
}

/// A query with a line for each of its clauses, as PostgreSQL lays them out.
fn in_lines(query: &str) -> String {
    const CLAUSES: [(&str, &str); 9] = [
        ("FROM", "\n   "),
        ("WHERE", "\n  "),
        ("GROUP", "\n  "),
        ("HAVING", "\n "),
        ("WINDOW", "\n  "),
        ("ORDER", "\n  "),
        ("LIMIT", "\n "),
        ("UNION", "\n"),
        ("EMIT", "\n  "),
    ];
    let (mut out, mut depth, mut quote) = (String::with_capacity(query.len() + 32), 0usize, None);
    let mut before = ' ';
    for (at, c) in query.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        let begins = |word: &str| {
            let rest = query[at..].get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word));
            rest.is_some() && query[at + word.len()..].starts_with(char::is_whitespace)
        };
        if quote.is_none()
            && depth == 0
            && before.is_whitespace()
            && let Some((_, indent)) = CLAUSES.iter().find(|(word, _)| begins(word))
        {
            out.truncate(out.trim_end().len());
            out.push_str(indent);
        }
        out.push(c);
        before = c;
    }
    out
}

/// Where the query begins in the statement that made a view: behind the first AS.
fn query_at(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let space = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_whitespace);
    let is_as = |at: &usize| {
        space(*at)
            && bytes[*at + 1..].get(..2).is_some_and(|w| w.eq_ignore_ascii_case(b"as"))
            && space(*at + 3)
    };
    (0..bytes.len()).find(is_as).map(|at| at + 4)
}

/// The id of what a name names in the catalog that the type `registry` looks things up in; with or
/// without its schema.
pub(in super::super) fn oid_of(catalog: &Catalog, registry: &str, name: &str) -> Option<i64> {
    let bare = name.rsplit('.').next().unwrap_or(name).trim_matches('"');
    match registry {
        "regclass" => {
            let relation = catalog.get(bare).map(|r| oid(r));
            let index = || Some(oid(catalog.get(bare.strip_suffix("_pkey")?)?) + INDEX_OFFSET);
            let system = || shapes::all().find(|shape| shape.name == bare).map(|shape| shape.oid);
            relation.or_else(index).or_else(system)
        }
        "regtype" => types::oid_of(bare),
        "regnamespace" => NAMESPACES.iter().find(|(_, n)| *n == bare).map(|(id, _)| *id),
        "regrole" => catalog.access().role(bare).map(|role| i64::from(role.id)),
        "regproc" | "regprocedure" => super::procedures::oid_of(bare),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::in_lines;

    #[test]
    fn clauses_have_lines_of_their_own() {
        let query = "SELECT a, (SELECT b FROM u), 'x FROM y' FROM t WHERE c GROUP BY a";
        let lines = "SELECT a, (SELECT b FROM u), 'x FROM y'\n   FROM t\n  WHERE c\n  GROUP BY a";
        assert_eq!(in_lines(query), lines);
    }
}
