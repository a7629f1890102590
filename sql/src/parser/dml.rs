//! INSERT, UPDATE and DELETE: sqlparser's trees, cut down to what has a meaning here.

use sqlparser::ast::{
    self, AssignmentTarget, ConflictTarget, Expr, FromTable, Ident, ObjectName, ObjectNamePart,
    OnConflictAction, OnInsert, SelectItem, SetExpr, TableFactor, TableObject, UpdateTableFromKind,
};
use sqlparser::tokenizer::Token;

use super::StatementParser;
use crate::ast::{ConflictAction, Delete, Insert, OnConflict, Query, Statement, Update};
use crate::clauses;
use crate::error::{Error, Result};

impl StatementParser<'_, '_> {
    pub(super) fn insert(&mut self) -> Result<Statement> {
        let ast::Statement::Insert(insert) = self.with(|p| p.parse_statement())? else {
            return self.unexpected("INSERT");
        };
        let TableObject::TableName(name) = insert.table else {
            return Err(Error::unsupported("INSERT into a function", "name a stream or a table"));
        };
        let on_conflict = match insert.on {
            None => None,
            Some(OnInsert::OnConflict(conflict)) => Some(on_conflict(conflict)?),
            Some(_) => return Err(Error::unsupported("ON DUPLICATE KEY", "ON CONFLICT is")),
        };
        let columns = insert.columns.iter().map(column).collect::<Result<_>>()?;
        let source = insert.source.map(|mut ast| {
            let emit = clauses::take_emit(&mut ast.body);
            Query { ast, emit }
        });
        Ok(Statement::Insert(Insert {
            name,
            columns,
            source,
            on_conflict,
            returning: insert.returning.unwrap_or_default(),
        }))
    }

    pub(super) fn update(&mut self) -> Result<Statement> {
        let ast::Statement::Update(update) = self.with(|p| p.parse_statement())? else {
            return self.unexpected("UPDATE");
        };
        if !update.table.joins.is_empty() {
            return Err(Error::unsupported("UPDATE of a join", "name other relations behind FROM"));
        }
        let others = match update.from {
            Some(UpdateTableFromKind::AfterSet(others)) => others,
            Some(UpdateTableFromKind::BeforeSet(_)) => return self.unexpected("FROM behind SET"),
            None => Vec::new(),
        };
        let (name, alias) = target(update.table.relation)?;
        let assignments = assigned(update.assignments)?;
        let (selection, returning) = (update.selection, update.returning.unwrap_or_default());
        Ok(Statement::Update(Update { name, alias, assignments, others, selection, returning }))
    }

    /// TRUNCATE; there are no sequences to restart, and queries that read a table follow it.
    pub(super) fn truncate(&mut self) -> Result<Statement> {
        self.word("TRUNCATE");
        self.word("TABLE");
        self.word("ONLY");
        let mut names = vec![self.name()?];
        while self.parser.consume_token(&Token::Comma) {
            names.push(self.name()?);
        }
        let _ = self.words(&["RESTART", "IDENTITY"]) || self.words(&["CONTINUE", "IDENTITY"]);
        let _ = self.word("CASCADE") || self.word("RESTRICT");
        Ok(Statement::Truncate(names))
    }

    pub(super) fn delete(&mut self) -> Result<Statement> {
        let ast::Statement::Delete(delete) = self.with(|p| p.parse_statement())? else {
            return self.unexpected("DELETE");
        };
        let (FromTable::WithFromKeyword(mut from) | FromTable::WithoutKeyword(mut from)) = delete.from;
        match (from.pop(), from.is_empty()) {
            (Some(table), true) if table.joins.is_empty() => {
                let (name, alias) = target(table.relation)?;
                let (selection, returning) = (delete.selection, delete.returning.unwrap_or_default());
                let others = delete.using.unwrap_or_default();
                Ok(Statement::Delete(Delete { name, alias, others, selection, returning }))
            }
            _ => Err(Error::unsupported("DELETE from several relations", "delete from one at a time")),
        }
    }
}

fn on_conflict(conflict: ast::OnConflict) -> Result<OnConflict> {
    let columns = match conflict.conflict_target {
        None => Vec::new(),
        Some(ConflictTarget::Columns(columns)) => columns,
        Some(ConflictTarget::OnConstraint(_)) => {
            return Err(Error::unsupported("ON CONFLICT ON CONSTRAINT", "name the columns of the key"));
        }
    };
    let action = match conflict.action {
        OnConflictAction::DoNothing => ConflictAction::Nothing,
        OnConflictAction::DoUpdate(update) => ConflictAction::Update {
            assignments: assigned(update.assignments)?,
            selection: update.selection.map(Box::new),
        },
    };
    Ok(OnConflict { columns, action })
}

fn assigned(all: Vec<ast::Assignment>) -> Result<Vec<(Ident, Expr)>> {
    let mut assignments = Vec::new();
    for assignment in all {
        match assignment.target {
            AssignmentTarget::ColumnName(name) => assignments.push((column(&name)?, assignment.value)),
            AssignmentTarget::Tuple(names) => assignments.extend(each(&names, assignment.value)?),
        }
    }
    Ok(assignments)
}

/// The assignments of `SET (a, b) = (x, y)`.
fn each(names: &[ObjectName], value: Expr) -> Result<Vec<(Ident, Expr)>> {
    let values = match value {
        Expr::Tuple(values) => values,
        Expr::Nested(value) => vec![*value],
        Expr::Subquery(query) => one_by_one(*query)?,
        _ => return Err(Error::unsupported("SET (a, b) = a query", "assign each column")),
    };
    if values.len() != names.len() {
        return Err(Error::Syntax {
            message: "number of columns does not match number of values".into(),
            position: 0,
            hint: None,
        });
    }
    names.iter().zip(values).map(|(name, value)| Ok((column(name)?, value))).collect()
}

/// A query for each column of a query: all of them read the same rows.
fn one_by_one(query: ast::Query) -> Result<Vec<Expr>> {
    let unsupported = || Error::unsupported("SET (a, b) = this query", "assign each column");
    let SetExpr::Select(select) = query.body.as_ref() else { return Err(unsupported()) };
    let plain =
        |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. });
    if !select.projection.iter().all(plain) {
        return Err(unsupported());
    }
    let one = |item: &SelectItem| {
        let mut query = query.clone();
        let mut select = select.clone();
        select.projection = vec![item.clone()];
        query.body = Box::new(SetExpr::Select(select));
        Expr::Subquery(Box::new(query))
    };
    Ok(select.projection.iter().map(one).collect())
}

fn target(factor: TableFactor) -> Result<(ObjectName, Option<Ident>)> {
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => Ok((name, alias.map(|a| a.name))),
        _ => Err(Error::unsupported("writing to a query", "name a table")),
    }
}

fn column(name: &ObjectName) -> Result<Ident> {
    match name.0.as_slice() {
        [.., ObjectNamePart::Identifier(ident)] => Ok(ident.clone()),
        _ => Err(Error::unsupported(format!("the column {name}"), "name a column")),
    }
}
