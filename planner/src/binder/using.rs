//! JOIN … USING and NATURAL JOIN, said with ON and names that tell whose they are.
//!
//! Of a merged column a right join has the right value, a full join the one that is there; DataFusion takes the
//! left one always, and knows merged columns in a select list only. `*` shows them first. A FROM with something
//! that has no name stays as it is written.
//!
//! Source: PostgreSQL, "Table Expressions", "Joined Tables".

use sql::sqlparser::ast::{
    BinaryOperator, ExcludeSelectItem, Expr, Ident, Join, JoinConstraint, JoinOperator, ObjectName, OrderBy,
    OrderByKind, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, TableFactor,
    TableWithJoins, Value, VisitMut, WildcardAdditionalOptions,
};

use super::own;
use super::spelling::{binary, call, expression, name_of};

/// What stands in FROM under a name.
pub(super) struct Factor {
    pub(super) alias: Ident,
    /// Names of its columns, where they are known.
    pub(super) columns: Option<Vec<String>>,
    /// Those of them that are part of a merged one.
    merged: Vec<String>,
}

impl Factor {
    pub(super) fn new(alias: Ident, columns: Option<Vec<String>>) -> Self {
        Self { alias, columns, merged: Vec::new() }
    }

    fn column(&self, name: &str) -> Expr {
        Expr::CompoundIdentifier(vec![self.alias.clone(), Ident::with_quote('"', name)])
    }

    /// The items of a select list for what is not merged.
    fn items(&self) -> Vec<SelectItem> {
        let Some(columns) = &self.columns else {
            let mut options = WildcardAdditionalOptions::default();
            if !self.merged.is_empty() {
                let names = self.merged.iter().map(|name| vec![Ident::with_quote('"', name)].into());
                options.opt_exclude = Some(ExcludeSelectItem::Multiple(names.collect()));
            }
            let alias = ObjectName::from(vec![self.alias.clone()]);
            let kind = SelectItemQualifiedWildcardKind::ObjectName(alias);
            return vec![SelectItem::QualifiedWildcard(kind, options)];
        };
        let own = columns.iter().filter(|name| !self.merged.contains(name));
        own.map(|name| SelectItem::UnnamedExpr(self.column(name))).collect()
    }
}

/// One item of FROM, as far as its joins have been read.
#[derive(Default)]
struct Joined {
    factors: Vec<Factor>,
    /// Merged columns, and where their values are.
    merged: Vec<(String, Expr)>,
}

/// Which side of a join has a value where the other has none.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    Left,
    Right,
    Either,
}

impl Joined {
    /// The one column of a name, with the place of the factor that has it unless it is merged already.
    fn column(&self, name: &str) -> Option<(Expr, Option<usize>)> {
        if let Some((_, merged)) = self.merged.iter().find(|(merged, _)| merged == name) {
            return Some((merged.clone(), None));
        }
        let knows =
            |factor: &Factor| factor.columns.as_ref().map(|columns| columns.iter().any(|c| c == name));
        let places = |wanted: Option<bool>| {
            let found = self.factors.iter().enumerate().filter(move |(_, f)| knows(f) == wanted);
            found.map(|(place, _)| place).collect::<Vec<_>>()
        };
        let place = match (places(Some(true)).as_slice(), places(None).as_slice()) {
            ([one], _) | ([], [one]) => *one,
            _ => return None,
        };
        Some((self.factors.get(place)?.column(name), Some(place)))
    }

    fn names(&self) -> Option<Vec<&String>> {
        let columns = self.factors.iter().map(|factor| factor.columns.as_ref());
        Some(columns.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// Reads a join on columns of these names; its condition.
    fn merge(&mut self, mut right: Factor, names: Vec<String>, kept: Kept) -> Option<Expr> {
        let mut condition = Expr::value(Value::Boolean(true));
        let mut merged = Vec::with_capacity(names.len());
        for (n, name) in names.into_iter().enumerate() {
            let ((left, place), other) = (self.column(&name)?, right.column(&name));
            let equal = binary(left.clone(), BinaryOperator::Eq, other.clone());
            condition = if n == 0 { equal } else { binary(condition, BinaryOperator::And, equal) };
            if let Some(factor) = place.and_then(|place| self.factors.get_mut(place)) {
                factor.merged.push(name.clone());
            }
            right.merged.push(name.clone());
            let value = match kept {
                Kept::Left => left,
                Kept::Right => other,
                Kept::Either => call("coalesce", vec![left, other]),
            };
            self.merged.retain(|(earlier, _)| *earlier != name);
            merged.push((name, value));
        }
        self.merged.splice(0..0, merged);
        self.factors.push(right);
        Some(condition)
    }

    fn items(&self) -> Vec<SelectItem> {
        let merged = self.merged.iter().map(|(name, value)| item(name, value));
        merged.chain(self.factors.iter().flat_map(Factor::items)).collect()
    }
}

fn item(name: &str, value: &Expr) -> SelectItem {
    match value {
        Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(value.clone()),
        _ => SelectItem::ExprWithAlias { expr: value.clone(), alias: Ident::with_quote('"', name) },
    }
}

/// Rewrites the SELECTs of a query that join on common names. `factor` says what is known of what stands in FROM.
pub(super) fn apply(query: &mut Query, factor: &dyn Fn(&TableFactor) -> Option<Factor>) {
    let order_by = query.order_by.as_mut();
    body(&mut query.body, order_by, factor);
}

fn body(
    body_of: &mut SetExpr,
    order_by: Option<&mut OrderBy>,
    factor: &dyn Fn(&TableFactor) -> Option<Factor>,
) {
    match body_of {
        SetExpr::Select(of) => {
            let _ = select(of, order_by, factor);
        }
        SetExpr::SetOperation { left, right, .. } => {
            body(left, None, factor);
            body(right, None, factor);
        }
        _ => {}
    }
}

/// None, and nothing changed, where it has to stay as it is.
fn select(
    select: &mut Select,
    order_by: Option<&mut OrderBy>,
    factor: &dyn Fn(&TableFactor) -> Option<Factor>,
) -> Option<()> {
    let common = |join: &mut Join| {
        let constraint = constraint(&mut join.join_operator);
        matches!(constraint, Some((JoinConstraint::Using(_) | JoinConstraint::Natural, _)))
    };
    if !select.from.iter_mut().flat_map(|table| &mut table.joins).any(common) {
        return None;
    }
    let mut from = select.from.clone();
    let read = from.iter_mut().map(|table| read(table, factor)).collect::<Option<Vec<_>>>()?;
    let mut items = Vec::with_capacity(select.projection.len());
    for item in &select.projection {
        match item {
            SelectItem::Wildcard(options) if *options == WildcardAdditionalOptions::default() => {
                items.extend(read.iter().flat_map(Joined::items));
            }
            SelectItem::Wildcard(_) => return None,
            _ => items.push(item.clone()),
        }
    }
    (select.from, select.projection) = (from, items);
    let names = Names { merged: read.into_iter().flat_map(|joined| joined.merged).collect() };
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(Expr::Identifier(name)) = item
            && let Some((name, value)) = names.find(name)
        {
            *item = self::item(name, value);
        }
    }
    let outputs: Vec<String> = select.projection.iter().filter_map(output_name).collect();
    names.replace(select);
    if let Some(OrderByKind::Expressions(keys)) = order_by.map(|order| &mut order.kind) {
        for key in keys {
            if !matches!(&key.expr, Expr::Identifier(name) if outputs.contains(&sql::fold(name))) {
                names.replace(&mut key.expr);
            }
        }
    }
    Some(())
}

/// Reads one item of FROM and gives its joins their conditions.
fn read(table: &mut TableWithJoins, factor: &dyn Fn(&TableFactor) -> Option<Factor>) -> Option<Joined> {
    let mut joined = Joined { factors: vec![factor(&table.relation)?], merged: Vec::new() };
    for join in &mut table.joins {
        let right = factor(&join.relation)?;
        let Some((constraint, kept)) = constraint(&mut join.join_operator) else {
            joined.factors.push(right);
            continue;
        };
        let names = match constraint {
            JoinConstraint::Using(names) => names.iter().map(name_of).collect(),
            JoinConstraint::Natural => {
                let left = joined.names()?;
                right.columns.iter().flatten().filter(|name| left.contains(name)).cloned().collect()
            }
            JoinConstraint::On(_) | JoinConstraint::None => {
                joined.factors.push(right);
                continue;
            }
        };
        *constraint = JoinConstraint::On(joined.merge(right, names, kept)?);
    }
    Some(joined)
}

fn constraint(join: &mut JoinOperator) -> Option<(&mut JoinConstraint, Kept)> {
    match join {
        JoinOperator::Join(on) | JoinOperator::Inner(on) | JoinOperator::Left(on) => Some((on, Kept::Left)),
        JoinOperator::LeftOuter(on) => Some((on, Kept::Left)),
        JoinOperator::Right(on) | JoinOperator::RightOuter(on) => Some((on, Kept::Right)),
        JoinOperator::FullOuter(on) => Some((on, Kept::Either)),
        _ => None,
    }
}

/// The name of a result column, where it is plain to see.
fn output_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(sql::fold(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(sql::fold(name)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(sql::fold),
        _ => None,
    }
}

/// Puts the values of merged columns where their names stand. Names in subqueries may be those of the subquery.
struct Names {
    merged: Vec<(String, Expr)>,
}

impl Names {
    fn find(&self, name: &Ident) -> Option<&(String, Expr)> {
        let name = sql::fold(name);
        self.merged.iter().find(|(merged, _)| *merged == name)
    }

    fn replace(&self, node: &mut impl VisitMut) {
        // The name on the right of an arrow is a field's.
        let fields = |expr: &mut Expr| {
            if matches!(expr, Expr::BinaryOp { op: BinaryOperator::Arrow, .. }) {
                expression(expr);
            }
        };
        own::each(node, fields, |expr| {
            if let Expr::Identifier(name) = expr
                && let Some((_, value)) = self.find(name)
            {
                *expr = value.clone();
            }
        });
    }
}
