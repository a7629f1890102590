//! The grammar: random queries over relations of one layout, tables, streams and views among them.
//!
//! Invariant: a query's answer does not depend on how ties are broken, so it has one right answer.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// The columns that every relation a query reads has.
pub const LAYOUT: &str = "id INT, g TEXT, v INT, f DOUBLE PRECISION, ts TIMESTAMP";
/// Stands for now() in a query: in batch, it is the time of the epoch.
pub const NOW: &str = "{now}";
/// Views on views on views.
const DEEPEST: usize = 3;

/// A relation of the layout.
struct Base {
    name: String,
    /// No two rows have the same id.
    unique: bool,
    /// Views below it.
    depth: usize,
}

/// Makes queries.
pub struct Grammar {
    random: StdRng,
    bases: Vec<Base>,
    /// Epochs are large, so joins of everything with everything are left out.
    large: bool,
}

/// A statement that makes a view.
#[derive(Debug, Clone)]
pub struct Made {
    /// CREATE …, without the name and the query.
    pub kind: &'static str,
    /// WITH and its options.
    pub options: &'static str,
    /// Its query.
    pub query: String,
}

/// The windows of the grammar, behind the name of the relation.
const TUMBLE: &str = ", ts, INTERVAL '10 seconds') x";
const HOP: &str = ", ts, INTERVAL '5 seconds', INTERVAL '15 seconds') x";

const CUMULATE: &str = ", ts, INTERVAL '3 seconds', INTERVAL '9 seconds') x";

/// The query with its windows spelled out, so that they are computed in another way than ours.
pub fn in_batch(query: &str) -> String {
    let spelled = |query: &str, function: &str, rest: &str, windows: &str| match query.split_once(function) {
        Some((before, after)) => {
            let (base, after) = after.split_once(rest).expect("the grammar writes it so");
            format!("{before}{}{after}", windows.replace("{base}", base))
        }
        None => query.to_owned(),
    };
    let tumbling = "(SELECT b.*, date_bin(INTERVAL '10 seconds', b.ts) AS window_start, \
        date_bin(INTERVAL '10 seconds', b.ts) + INTERVAL '10 seconds' AS window_end \
        FROM {base} b WHERE b.ts IS NOT NULL) x";
    let hopping = "(SELECT b.*, date_bin(INTERVAL '5 seconds', b.ts) - k.back AS window_start, \
        date_bin(INTERVAL '5 seconds', b.ts) - k.back + INTERVAL '15 seconds' AS window_end FROM {base} b \
        CROSS JOIN (VALUES (INTERVAL '0 seconds'), (INTERVAL '5 seconds'), (INTERVAL '10 seconds')) k(back) \
        WHERE b.ts IS NOT NULL AND date_bin(INTERVAL '5 seconds', b.ts) - k.back >= TIMESTAMP '1970-01-01') x";
    let cumulating = "(SELECT b.*, date_bin(INTERVAL '9 seconds', b.ts) AS window_start, \
        date_bin(INTERVAL '9 seconds', b.ts) + k.step AS window_end FROM {base} b \
        CROSS JOIN (VALUES (INTERVAL '3 seconds'), (INTERVAL '6 seconds'), (INTERVAL '9 seconds')) k(step) \
        WHERE date_bin(INTERVAL '9 seconds', b.ts) + k.step > b.ts) x";
    let query = spelled(query, "TUMBLE(", TUMBLE, tumbling);
    spelled(&spelled(&query, "HOP(", HOP, hopping), "CUMULATE(", CUMULATE, cumulating)
}

impl Grammar {
    /// Over two tables with keys and two streams.
    pub fn new(seed: u64, large: bool) -> Self {
        let base = |(name, unique): (&str, bool)| Base { name: name.into(), unique, depth: 0 };
        let bases = [("t", true), ("u", true), ("s", false), ("w", false)].map(base).into();
        Self { random: StdRng::seed_from_u64(seed), bases, large }
    }

    /// The next view, which is called `name`.
    pub fn view(&mut self, name: &str) -> Made {
        if self.chance(0.3) { self.base_view(name) } else { self.last_view() }
    }

    fn chance(&mut self, p: f64) -> bool {
        self.random.random_bool(p)
    }

    fn below(&mut self, n: usize) -> usize {
        self.random.random_range(0..n)
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.random.random_range(0..from.len())]
    }

    /// Any relation of the layout.
    fn any(&mut self) -> String {
        self.bases[self.random.random_range(0..self.bases.len())].name.clone()
    }

    /// One in which ids are different.
    fn unique(&mut self) -> String {
        let unique: Vec<&Base> = self.bases.iter().filter(|b| b.unique).collect();
        unique[self.random.random_range(0..unique.len())].name.clone()
    }

    fn made(&mut self, query: String) -> Made {
        let kind = if self.chance(0.2) { "TABLE" } else { "MATERIALIZED VIEW" };
        Made { kind, options: "", query }
    }

    /// A view that others may read.
    fn base_view(&mut self, name: &str) -> Made {
        let (below, condition) = (self.any(), self.predicate());
        let unique = self.unique();
        let columns = "x.id AS id, x.g AS g, x.v AS v, x.f AS f, x.ts AS ts";
        let (query, from, is_unique) = match self.below(if self.large { 4 } else { 8 }) {
            0 => (format!("SELECT {columns} FROM {unique} x{condition}"), vec![unique], true),
            1 => {
                let first = format!(
                    "SELECT x.*, row_number() OVER (PARTITION BY x.g ORDER BY x.v, x.id) AS n FROM {unique} x"
                );
                (format!("SELECT {columns} FROM ({first}) x WHERE n <= 3"), vec![unique], true)
            }
            2 => {
                let summed =
                    "x.v AS id, max(x.g) AS g, CAST(sum(x.id) AS INT) AS v, sum(x.f) AS f, max(x.ts) AS ts";
                let query = format!("SELECT {summed} FROM {below} x WHERE x.v IS NOT NULL GROUP BY x.v");
                (query, vec![below], true)
            }
            3 | 6 => {
                let query = format!("SELECT {columns} FROM s x{}", self.lasting_predicate());
                self.bases.push(Base { name: name.into(), unique: false, depth: 1 });
                return Made { kind: "STREAM", options: "", query };
            }
            4 => {
                let query =
                    format!("SELECT {columns} FROM {below} x UNION ALL SELECT {columns} FROM {unique} x");
                (query, vec![below, unique], false)
            }
            _ => {
                let other = self.unique();
                let joined = "x.id AS id, y.g AS g, x.v AS v, y.f AS f, x.ts AS ts";
                let query =
                    format!("SELECT {joined} FROM {unique} x LEFT JOIN {other} y ON x.v = y.id{condition}");
                (query, vec![unique, other], true)
            }
        };
        let depths = self.bases.iter().filter(|b| from.contains(&b.name)).map(|b| b.depth);
        let depth = 1 + depths.max().unwrap_or(0);
        if depth < DEEPEST {
            self.bases.push(Base { name: name.into(), unique: is_unique, depth });
        }
        self.made(query)
    }

    fn last_view(&mut self) -> Made {
        let query = match self.below(if self.large { 9 } else { 7 }) {
            7 | 8 => self.merged_query("s"),
            0 => self.greatest_query(),
            1 | 2 => self.plain_query(),
            3 | 4 => self.grouped_query(),
            _ => self.wide_query(),
        };
        self.made(query)
    }

    /// A WHERE, or none.
    fn predicate(&mut self) -> String {
        let timed = [
            "x.ts > {now} - INTERVAL '10 seconds'",
            "x.ts <= {now}",
            "x.ts BETWEEN {now} - INTERVAL '15 seconds' AND {now} - INTERVAL '5 seconds' AND x.v >= 0",
            "x.ts >= date_trunc('minute', {now} - INTERVAL '7 seconds')",
        ];
        if self.chance(0.12) { format!(" WHERE {}", self.pick(&timed)) } else { self.lasting_predicate() }
    }

    /// A WHERE that holds for a row or does not, or none.
    fn lasting_predicate(&mut self) -> String {
        let simple = [
            "x.v > 2",
            "x.v IS NULL",
            "x.g = 'a'",
            "x.g <> 'b'",
            "x.f < 1.5",
            "x.v % 2 = 0",
            "x.id IN (1, 3, 5)",
            "x.v BETWEEN 0 AND 4",
            "coalesce(x.g, 'z') LIKE '%a%'",
            "NOT (x.v > 3)",
            "x.g IS NOT NULL",
        ];
        match self.below(3) {
            0 => String::new(),
            1 => format!(" WHERE {}", self.pick(&simple)),
            _ => {
                let (first, second) = (self.pick(&simple), self.pick(&simple));
                format!(" WHERE {first} {} {second}", self.pick(&["AND", "OR"]))
            }
        }
    }

    /// What stands behind FROM, under the name x, and what its rows can be grouped by.
    fn source(&mut self) -> (String, Vec<&'static str>) {
        let base = self.any();
        let windowed = vec!["x.window_start", "x.window_end", "x.g"];
        match self.below(if self.large { 3 } else { 10 }) {
            0 if self.chance(0.3) => (format!("CUMULATE({base}{CUMULATE}"), windowed),
            0 => (format!("TUMBLE({base}{TUMBLE}"), windowed),
            1 => (format!("HOP({base}{HOP}"), windowed),
            3 => (format!("SESSION({base}, ts, INTERVAL '3 seconds', g) x"), windowed),
            4 => (format!("{base} x JOIN {} y ON x.v = y.id", self.unique()), vec!["x.g", "y.g", "y.v"]),
            5 => {
                let (first, condition) = (self.unique(), "x.g = y.g AND x.v < y.v");
                (format!("{first} x JOIN {base} y ON {condition}"), vec!["x.g", "y.v"])
            }
            6 => {
                let (kind, other) = (self.pick(&["LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]), self.unique());
                (format!("{base} x {kind} {other} y ON x.v = y.id"), vec!["x.g", "y.g", "y.v"])
            }
            7 => {
                let (kind, other) = (self.pick(&["EXISTS", "NOT EXISTS"]), self.unique());
                let exists = format!("{kind} (SELECT 1 FROM {other} y WHERE y.id = z.v)");
                (format!("(SELECT z.* FROM {base} z WHERE {exists}) x"), vec!["x.g", "x.v"])
            }
            _ => {
                let keys = vec!["x.g", "x.v", "x.id % 3", "CASE WHEN x.v > 2 THEN 'hi' ELSE 'lo' END"];
                (format!("{base} x"), keys)
            }
        }
    }

    /// `n` of `from`, named a0, a1, …
    fn columns(&mut self, from: &[&str], n: usize) -> String {
        (0..n).map(|i| format!("{} AS a{i}", self.pick(from))).collect::<Vec<_>>().join(", ")
    }

    /// Filters, projections, unions.
    fn plain_query(&mut self) -> String {
        let (from, _) = self.source();
        let condition = self.predicate();
        match self.below(3) {
            0 => format!(
                "SELECT x.id AS c0, x.g AS c1, x.v * 2 AS c2, upper(x.g) AS c3 FROM {from}{condition}"
            ),
            1 => format!("SELECT DISTINCT x.g AS c0, x.v AS c1 FROM {from}{condition}"),
            _ => {
                let (other, also) = (self.any(), self.predicate());
                let set = self.pick(&["UNION ALL", "UNION", "EXCEPT", "INTERSECT"]);
                format!(
                    "SELECT x.g AS c0, x.v AS c1 FROM {from}{condition} {set} SELECT x.g, x.id FROM {other} x{also}"
                )
            }
        }
    }

    /// The groups of a stream that are the greatest of a coarser group, in the forms that it is asked for.
    fn greatest_query(&mut self) -> String {
        let stream = self.pick(&["s", "w", "TUMBLE(s, ts, INTERVAL '10 seconds')"]);
        let condition = self.lasting_predicate();
        let value = self.pick(&["count(*)", "count(x.v)", "max(x.v)", "min(x.v)"]);
        let (extreme, order) = if value.starts_with("min") { ("min", "<=") } else { ("max", ">=") };
        let groups = format!(
            "SELECT x.g, x.id % 7 AS h, {value} AS n FROM {stream} x{condition} GROUP BY x.g, x.id % 7"
        );
        let chosen = match self.below(4) {
            0 => format!("JOIN (SELECT g, {extreme}(n) AS e FROM q GROUP BY g) m ON q.g = m.g AND q.n = m.e"),
            1 => format!(
                "JOIN (SELECT g, {extreme}(n) AS e FROM q GROUP BY g) m ON q.g = m.g AND q.n {order} m.e"
            ),
            2 => format!("WHERE q.n = (SELECT {extreme}(p.n) FROM q p WHERE p.g = q.g)"),
            _ => format!("WHERE q.n = (SELECT {extreme}(n) FROM q)"),
        };
        format!("WITH q AS ({groups}) SELECT q.g AS k, q.h AS c0, q.n AS c1 FROM q {chosen}")
    }

    /// Rows that a count cannot tell apart are merged before they are placed in their windows, where there are many.
    fn merged_query(&mut self, base: &str) -> String {
        let windows = match self.chance(0.7) {
            true => format!("HOP({base}{HOP}"),
            false => format!("CUMULATE({base}{CUMULATE}"),
        };
        let key = self.pick(&["x.g", "x.v % 2", "x.id"]);
        format!(
            "SELECT {key} AS k0, x.window_end AS k1, count(*) AS a0 FROM {windows} \
             GROUP BY {key}, x.window_start, x.window_end"
        )
    }

    /// GROUP BY in its forms.
    fn grouped_query(&mut self) -> String {
        let (from, keys) = self.source();
        let condition = self.predicate();
        let n = 1 + self.below(4);
        let key = self.pick(&keys);
        match self.below(9) {
            // Of values of two kinds: grouping once more does not do it.
            8 => {
                let (first, second) = (self.pick(&DISTINCT), self.pick(&DISTINCT_TOO));
                let more = self.columns(&AGGREGATES, n);
                format!(
                    "SELECT {key} AS k, {first} AS d0, {second} AS d1, {more} FROM {from}{condition} GROUP BY {key}"
                )
            }
            7 => {
                let base = self.any();
                self.merged_query(&base)
            }
            6 => {
                let aggregates = self.columns(&MERGED, n);
                let grouped = self.pick(&["x.g, x.window_start, x.window_end", "x.window_start, x.g"]);
                format!(
                    "SELECT x.g AS k0, x.window_start AS k1, {aggregates} \
                     FROM SESSION(s, ts, INTERVAL '3 seconds', g) x GROUP BY {grouped}"
                )
            }
            0 => format!("SELECT {} FROM {from}{condition}", self.columns(&AGGREGATES, n)),
            1 => {
                let aggregates = self.columns(&AGGREGATES, n);
                format!(
                    "SELECT {key} AS k, {aggregates} FROM {from}{condition} GROUP BY {key} HAVING count(*) > 1"
                )
            }
            2 => {
                format!("SELECT {key} AS k, count(DISTINCT x.v) AS a0 FROM {from}{condition} GROUP BY {key}")
            }
            3 => {
                let sets = self.pick(&[
                    "ROLLUP (x.g, x.v % 2)",
                    "CUBE (x.g, x.v % 2)",
                    "GROUPING SETS ((x.g), (x.v % 2), ())",
                    "GROUPING SETS ((x.g, x.v % 2), (x.g), (x.g))",
                ]);
                let aggregates = self.columns(&AGGREGATES, n);
                let keys = "x.g AS k0, x.v % 2 AS k1, grouping(x.g) AS k2";
                format!("SELECT {keys}, {aggregates} FROM {from}{condition} GROUP BY {sets}")
            }
            4 => {
                let recomputed = self.columns(&RECOMPUTED, n);
                let grouped = if self.chance(0.2) { String::new() } else { format!(" GROUP BY {key}") };
                format!("SELECT {recomputed} FROM {from}{condition}{grouped}")
            }
            _ => {
                let keys = keys[..=self.below(keys.len())].to_vec();
                let named: Vec<String> =
                    keys.iter().enumerate().map(|(i, k)| format!("{k} AS k{i}")).collect();
                let (named, aggregates) = (named.join(", "), self.columns(&AGGREGATES, n));
                format!("SELECT {named}, {aggregates} FROM {from}{condition} GROUP BY {}", keys.join(", "))
            }
        }
    }

    /// OVER, LIMIT, subqueries, joins without equality, lists, constants.
    fn wide_query(&mut self) -> String {
        let (from, _) = self.source();
        let condition = self.predicate();
        let (base, unique, other) = (self.any(), self.unique(), self.unique());
        let n = 1 + self.below(3);
        match self.below(if self.large { 5 } else { 14 }) {
            13 => {
                let all = self.pick(&["ALL", ""]);
                format!(
                    "WITH RECURSIVE r AS (SELECT x.id, x.v, 0 AS depth FROM {unique} x{condition} UNION {all} \
                     SELECT y.id, y.v, r.depth + 1 FROM {other} y JOIN r ON y.v = r.id WHERE r.depth < 3) \
                     SELECT r.id AS c0, r.depth AS c1, count(*) AS c2 FROM r GROUP BY r.id, r.depth"
                )
            }
            10 => format!(
                "SELECT x.id AS c0, y.n AS c1, y.m AS c2 FROM {unique} x CROSS JOIN LATERAL \
                 (SELECT count(*) AS n, max(z.f) AS m FROM {other} z WHERE z.v > x.v) y{condition}"
            ),
            11 => format!(
                "SELECT x.id AS c0, y.id AS c1, y.v AS c2 FROM {base} x LEFT JOIN LATERAL (SELECT z.id, z.v \
                 FROM {other} z WHERE z.g = x.g ORDER BY z.v DESC, z.id LIMIT 2) y ON true{condition}"
            ),
            12 => format!(
                "SELECT x.id AS c0, e AS c1, (SELECT sum(z.v) FROM {other} z WHERE z.id <= x.v) AS c2 \
                 FROM {base} x, unnest(make_array(x.v, x.id)) AS e{condition}"
            ),
            0 => {
                let functions = self.columns(&OVER_UNIQUE, n);
                format!("SELECT x.id AS c0, {functions} FROM {unique} x{condition}")
            }
            1 => {
                let nulls = self.pick(&["", " DESC", " NULLS FIRST"]);
                let (limit, offset) = (1 + self.below(5), self.below(3));
                format!(
                    "SELECT x.v AS c0, x.g AS c1, x.id AS c2 FROM {from}{condition} \
                     ORDER BY x.v{nulls}, x.g, x.id DESC LIMIT {limit} OFFSET {offset}"
                )
            }
            2 => {
                let (compared, n) = (self.pick(&["<=", "<", "="]), 1 + self.below(3));
                let number = "row_number() OVER (PARTITION BY x.g ORDER BY x.v DESC, x.id) AS n";
                format!(
                    "SELECT * FROM (SELECT x.id AS c0, x.g AS c1, x.v AS c2, {number} FROM {unique} x{condition}) q \
                     WHERE n {compared} {n}"
                )
            }
            3 => format!(
                "SELECT DISTINCT ON (x.g) x.g AS c0, x.id AS c1, x.v AS c2 FROM {unique} x{condition} \
                 ORDER BY x.g, x.v DESC, x.id"
            ),
            4 => format!("SELECT x.id AS c0, unnest(make_array(x.v, x.id)) AS c1 FROM {base} x{condition}"),
            5 => {
                let subquery = self.pick(&SUBQUERIES).replace("{u}", &other);
                if self.chance(0.4) {
                    format!("SELECT x.id AS c0, x.v AS c1, {subquery} AS c2 FROM {base} x{condition}")
                } else {
                    format!("SELECT x.id AS c0, x.g AS c1, x.v AS c2 FROM {base} x WHERE {subquery}")
                }
            }
            6 => {
                let kind = self.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
                format!(
                    "SELECT x.id AS c0, y.id AS c1, y.v AS c2 FROM {unique} x {kind} {other} y ON x.v < y.v"
                )
            }
            7 => {
                let functions = self.columns(&OVER, n);
                format!("SELECT x.id AS c0, x.g AS c1, {functions} FROM {from}{condition}")
            }
            8 => format!(
                "WITH q AS (SELECT x.g, sum(x.v) AS n FROM {base} x{condition} GROUP BY x.g) \
                 SELECT a.g AS c0, a.n AS c1, b.n AS c2 FROM q a CROSS JOIN q b WHERE a.n >= b.n"
            ),
            _ => format!(
                "SELECT x.id AS c0, y.n AS c1, (SELECT max(z.v) FROM {other} z) AS c2 \
                 FROM {base} x JOIN (VALUES ('a', 1), ('b', 2)) y(g, n) ON x.g = y.g{condition}"
            ),
        }
    }
}

const AGGREGATES: [&str; 17] = [
    "count(*)",
    "count(x.v)",
    "sum(x.v)",
    "avg(x.v)",
    "min(x.v)",
    "max(x.v)",
    "sum(x.f)",
    "avg(x.f)",
    "max(x.g)",
    "min(x.ts)",
    "sum(x.v) FILTER (WHERE x.f > 0)",
    "count(DISTINCT x.v)",
    "sum(DISTINCT x.f)",
    "avg(DISTINCT x.v) FILTER (WHERE x.g <> 'a')",
    "count(DISTINCT x.g) FILTER (WHERE x.v > 1)",
    "bool_and(x.v > 0)",
    "bool_or(x.f > 3)",
];

/// Of different values, of `v` and of others.
const DISTINCT: [&str; 2] = ["count(DISTINCT x.v)", "sum(DISTINCT x.v)"];
const DISTINCT_TOO: [&str; 3] = ["count(DISTINCT x.g)", "sum(DISTINCT x.id % 3)", "count(DISTINCT x.v % 2)"];

/// Aggregates whose states for two sessions can become one.
const MERGED: [&str; 9] = [
    "count(*)",
    "count(x.v)",
    "sum(x.v)",
    "avg(x.f)",
    "min(x.g)",
    "max(x.ts)",
    "sum(x.v) FILTER (WHERE x.f > 0)",
    "bool_and(x.v > 0)",
    "bool_or(x.f > 3)",
];

/// Aggregates without an incremental form: groups are recomputed.
const RECOMPUTED: [&str; 8] = [
    "string_agg(x.g, ',' ORDER BY x.g DESC)",
    "array_agg(x.v ORDER BY x.v)",
    "median(x.v)",
    "bit_xor(x.v)",
    "approx_distinct(x.v)",
    "first_value(x.v ORDER BY x.v DESC NULLS LAST)",
    "max(x.v)",
    "count(DISTINCT x.v)",
];

/// Functions over windows whose results do not depend on how ties are broken.
const OVER: [&str; 8] = [
    "sum(x.v) OVER (PARTITION BY x.g)",
    "count(*) OVER (PARTITION BY x.g ORDER BY x.v)",
    "rank() OVER (PARTITION BY x.g ORDER BY x.v DESC)",
    "dense_rank() OVER (ORDER BY x.f)",
    "max(x.f) OVER (PARTITION BY x.v % 2 ORDER BY x.id RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)",
    "min(x.v + 1) OVER ()",
    "sum(x.v) OVER (PARTITION BY x.g, x.v % 3 ORDER BY x.id RANGE BETWEEN 2 PRECEDING AND 1 FOLLOWING)",
    "avg(x.v) OVER (PARTITION BY CASE WHEN x.v > 2 THEN 1 ELSE 0 END)",
];

/// Functions over windows of the rows of a table, which have an order of their own.
const OVER_UNIQUE: [&str; 4] = [
    "lag(x.v) OVER (PARTITION BY x.g ORDER BY x.id)",
    "row_number() OVER (ORDER BY x.id DESC)",
    "sum(x.f) OVER (ORDER BY x.id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
    "last_value(x.v) OVER (PARTITION BY x.g ORDER BY x.id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)",
];

/// Keys of `t` are single, whether the planner sees it or not.
const SUBQUERIES: [&str; 12] = [
    "x.v IN (SELECT y.v FROM {u} y)",
    "x.v NOT IN (SELECT y.v FROM {u} y)",
    "x.v NOT IN (SELECT y.v FROM {u} y WHERE y.v IS NOT NULL)",
    "x.v > (SELECT avg(y.v) FROM {u} y)",
    "x.v = (SELECT max(y.v) FROM {u} y WHERE y.g = x.g)",
    "(x.v IN (SELECT y.v FROM {u} y WHERE y.g = 'a') OR x.g = 'b')",
    "EXISTS (SELECT 1 FROM {u} y WHERE y.v > x.v AND y.g = x.g)",
    "NOT EXISTS (SELECT 1 FROM {u} y WHERE y.id = x.v)",
    "EXISTS (SELECT 1 FROM {u} y WHERE y.v = 3)",
    "x.v >= (SELECT y.v FROM t y WHERE y.id = x.id)",
    "x.g = (SELECT y.g FROM t y WHERE y.id + 0 = x.v AND y.v <> x.id)",
    "x.v <= (SELECT max(y.v) FROM {u} y WHERE y.id = (SELECT z.v FROM t z WHERE z.id = x.id AND z.g = y.g))",
];
