//! Statements, top-down. Queries and expressions inside them are sqlparser's.

use arrow::datatypes::Field;
use sqlparser::ast::{Expr, Ident, ObjectName, SelectItem, TableWithJoins};

use crate::clauses::Emit;
use crate::options::Options;
use crate::policies::PolicyStatement;
use crate::roles::RoleStatement;
use crate::types::SqlType;

/// One statement with the text it was written in.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// Its meaning.
    pub statement: Statement,
    /// Its text, without the semicolon.
    pub text: String,
}

/// Everything a client may say.
#[derive(Debug, Clone, PartialEq)]
pub enum Statement {
    /// CREATE STREAM, CREATE TABLE with columns.
    CreateRelation(CreateRelation),
    /// CREATE STREAM / TABLE / MATERIALIZED VIEW / VIEW … AS SELECT.
    CreateAs(CreateAs),
    /// DROP.
    Drop(Drop),
    /// ALTER … RENAME TO.
    Rename(Rename),
    /// ALTER … ADD COLUMN.
    AddColumns(AddColumns),
    /// COMMENT ON.
    Comment(Comment),
    /// REFRESH MATERIALIZED VIEW, which waits until it has everything that was written.
    Refresh(ObjectName),
    /// INSERT.
    Insert(Insert),
    /// UPDATE.
    Update(Update),
    /// DELETE.
    Delete(Delete),
    /// TRUNCATE: all rows of tables.
    Truncate(Vec<ObjectName>),
    /// COPY.
    Copy(Copy),
    /// SELECT, VALUES, WITH; with EMIT it never ends.
    Query(Query),
    /// SUBSCRIBE TO (SELECT …).
    Subscribe(Subscribe),
    /// EXPLAIN.
    Explain(Explain),
    /// FLUSH.
    Flush,
    /// BACKUP TO a directory of the server's machine.
    Backup(String),
    /// SHOW STREAMS and the like.
    ShowObjects(ShowObjects),
    /// SHOW setting; None is SHOW ALL.
    ShowSetting(Option<String>),
    /// DESCRIBE relation.
    Describe(ObjectName),
    /// SET; a value of None is DEFAULT.
    Set {
        /// The setting.
        name: String,
        /// Its new value.
        value: Option<String>,
    },
    /// RESET; None is RESET ALL.
    Reset(Option<String>),
    /// BEGIN; with its isolation level, where it names one.
    Begin(Option<String>),
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO.
    Savepoint(Savepoint),
    /// DECLARE CURSOR.
    Declare(Declare),
    /// FETCH, MOVE.
    Fetch(Fetch),
    /// CLOSE a cursor; None is ALL.
    Close(Option<String>),
    /// PREPARE.
    Prepare(Prepare),
    /// EXECUTE a prepared statement.
    Execute {
        /// Its name.
        name: String,
        /// Values of its parameters.
        arguments: Vec<Expr>,
    },
    /// LISTEN to a channel.
    Listen(String),
    /// UNLISTEN; None is every channel.
    Unlisten(Option<String>),
    /// NOTIFY those who listen.
    Notify {
        /// The channel.
        channel: String,
        /// What they are told.
        payload: String,
    },
    /// DISCARD ALL and the like.
    Discard,
    /// DEALLOCATE; None is ALL.
    Deallocate(Option<String>),
    /// PAUSE, RESUME, TERMINATE; None is ALL.
    Lifecycle {
        /// What becomes of the query.
        action: LifecycleAction,
        /// The relation that it keeps.
        name: Option<ObjectName>,
    },
    /// CREATE ROLE, GRANT and the like.
    Role(RoleStatement),
    /// CREATE POLICY and the like.
    Policy(PolicyStatement),
    /// CREATE INDEX and others that in PostgreSQL change speed and no answer, by their command tag.
    Tuning(&'static str),
}

/// A mark inside a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Savepoint {
    /// SAVEPOINT.
    Set(String),
    /// RELEASE.
    Release(String),
    /// ROLLBACK TO.
    RollBackTo(String),
}

/// DECLARE name CURSOR FOR query.
#[derive(Debug, Clone, PartialEq)]
pub struct Declare {
    /// The cursor.
    pub name: String,
    /// Rows go out in binary.
    pub binary: bool,
    /// It outlives its transaction.
    pub hold: bool,
    /// A query or SUBSCRIBE.
    pub statement: Box<Statement>,
}

/// FETCH or MOVE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The cursor.
    pub name: String,
    /// How far.
    pub count: FetchCount,
    /// MOVE: rows are passed over.
    pub moves: bool,
}

/// How many rows of a cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchCount {
    /// As many.
    Rows(usize),
    /// All that are left.
    All,
}

/// PREPARE name (types) AS statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepare {
    /// Its name.
    pub name: String,
    /// Types of its parameters, as far as they are given.
    pub types: Vec<Field>,
    /// The statement.
    pub prepared: Box<Parsed>,
}

/// What becomes of a running query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleAction {
    /// It stands still; its rows stay as they are.
    Pause,
    /// It goes on, also after it failed, from where its sources are.
    Resume,
    /// It ends; its rows stay as they are.
    Terminate,
}

/// What a CREATE or DROP names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// An append-only relation over a topic.
    Stream,
    /// A keyed relation over a topic.
    Table,
    /// A kept query.
    MaterializedView,
    /// A named query.
    View,
}

impl RelationKind {
    /// As it is written after CREATE.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Stream => "STREAM",
            Self::Table => "TABLE",
            Self::MaterializedView => "MATERIALIZED VIEW",
            Self::View => "VIEW",
        }
    }

    /// As it is called in a message.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Table => "table",
            Self::MaterializedView => "materialized view",
            Self::View => "view",
        }
    }
}

/// CREATE STREAM or CREATE TABLE with a list of columns.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateRelation {
    /// Stream or table.
    pub kind: RelationKind,
    /// Its name.
    pub name: ObjectName,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// OR REPLACE.
    pub or_replace: bool,
    /// CREATE SOURCE: others write to its topic, and nobody here.
    pub read_only: bool,
    /// Its columns.
    pub columns: Vec<Column>,
    /// PRIMARY KEY (a, b) beside the columns.
    pub primary_key: Vec<Ident>,
    /// WITH (…).
    pub options: Options,
}

/// A column of CREATE STREAM or CREATE TABLE.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: Ident,
    /// Its type.
    pub data_type: SqlType,
    /// KEY or PRIMARY KEY.
    pub key: bool,
    /// NOT NULL.
    pub not_null: bool,
    /// DEFAULT.
    pub default: Option<Expr>,
    /// HEADERS, HEADER('key').
    pub headers: Option<Headers>,
}

/// What a column holds of its record's headers.
///
/// Source: ksqlDB, CREATE STREAM, HEADERS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Headers {
    /// All of them, in their order.
    All,
    /// The value of the last one with this key.
    Of(String),
}

/// CREATE … AS SELECT.
#[derive(Debug, Clone, PartialEq)]
pub struct CreateAs {
    /// What is made.
    pub kind: RelationKind,
    /// Its name.
    pub name: ObjectName,
    /// IF NOT EXISTS.
    pub if_not_exists: bool,
    /// OR REPLACE.
    pub or_replace: bool,
    /// Names of the columns, where given.
    pub columns: Vec<Ident>,
    /// WITH (…).
    pub options: Options,
    /// The query.
    pub query: Query,
}

/// DROP, with or without CASCADE.
#[derive(Debug, Clone, PartialEq)]
pub struct Drop {
    /// What kind the statement names.
    pub kind: RelationKind,
    /// IF EXISTS.
    pub if_exists: bool,
    /// The names.
    pub names: Vec<ObjectName>,
    /// DELETE TOPIC: a topic that was named goes too.
    pub delete_topic: bool,
    /// CASCADE: with everything that reads it.
    pub cascade: bool,
}

/// ALTER TABLE … RENAME TO.
#[derive(Debug, Clone, PartialEq)]
pub struct Rename {
    /// What kind the statement names.
    pub kind: RelationKind,
    /// IF EXISTS.
    pub if_exists: bool,
    /// The relation.
    pub relation: ObjectName,
    /// Its name from now on.
    pub name: ObjectName,
}

/// ALTER … ADD COLUMN.
#[derive(Debug, Clone, PartialEq)]
pub struct AddColumns {
    /// What kind the statement names.
    pub kind: RelationKind,
    /// IF EXISTS.
    pub if_exists: bool,
    /// The relation.
    pub relation: ObjectName,
    /// The columns, each with IF NOT EXISTS or without.
    pub columns: Vec<(Column, bool)>,
}

/// COMMENT ON a relation or a column.
#[derive(Debug, Clone, PartialEq)]
pub struct Comment {
    /// The relation.
    pub relation: ObjectName,
    /// Its column, for one of a column.
    pub column: Option<Ident>,
    /// What is said; None is NULL, which takes the comment away.
    pub text: Option<String>,
}

/// INSERT INTO name (columns) source.
#[derive(Debug, Clone, PartialEq)]
pub struct Insert {
    /// The target.
    pub name: ObjectName,
    /// The columns given; empty means all.
    pub columns: Vec<Ident>,
    /// VALUES or SELECT; None is DEFAULT VALUES.
    pub source: Option<Query>,
    /// ON CONFLICT.
    pub on_conflict: Option<OnConflict>,
    /// RETURNING; empty without it.
    pub returning: Vec<SelectItem>,
}

/// ON CONFLICT (columns) DO ….
#[derive(Debug, Clone, PartialEq)]
pub struct OnConflict {
    /// The columns of the key that is there already; empty means whichever.
    pub columns: Vec<Ident>,
    /// What is done.
    pub action: ConflictAction,
}

/// What becomes of a row whose key is there.
#[derive(Debug, Clone, PartialEq)]
pub enum ConflictAction {
    /// DO NOTHING: the row that is there stays.
    Nothing,
    /// DO UPDATE SET column = expression WHERE ….
    Update {
        /// The new values; `excluded` names the row that was to be inserted.
        assignments: Vec<(Ident, Expr)>,
        /// Rows that do not fulfil it stay.
        selection: Option<Box<Expr>>,
    },
}

/// UPDATE name SET … WHERE ….
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// The target.
    pub name: ObjectName,
    /// Its alias.
    pub alias: Option<Ident>,
    /// SET column = expression.
    pub assignments: Vec<(Ident, Expr)>,
    /// FROM: other relations whose rows the expressions and the condition may name.
    pub others: Vec<TableWithJoins>,
    /// WHERE.
    pub selection: Option<Expr>,
    /// RETURNING; empty without it.
    pub returning: Vec<SelectItem>,
}

/// DELETE FROM name WHERE ….
#[derive(Debug, Clone, PartialEq)]
pub struct Delete {
    /// The target.
    pub name: ObjectName,
    /// Its alias.
    pub alias: Option<Ident>,
    /// USING: other relations whose rows the condition may name.
    pub others: Vec<TableWithJoins>,
    /// WHERE.
    pub selection: Option<Expr>,
    /// RETURNING; empty without it.
    pub returning: Vec<SelectItem>,
}

/// COPY.
#[derive(Debug, Clone, PartialEq)]
pub struct Copy {
    /// From the client into a relation, or out of one to the client.
    pub direction: CopyDirection,
    /// FORMAT and the rest.
    pub options: CopyOptions,
}

/// Where COPY reads and writes.
#[derive(Debug, Clone, PartialEq)]
pub enum CopyDirection {
    /// FROM STDIN.
    In {
        /// The target.
        name: ObjectName,
        /// The columns given; empty means all.
        columns: Vec<Ident>,
    },
    /// TO STDOUT.
    Out(Query),
}

/// The layout of COPY data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Tab-separated with back-slash escapes.
    Text,
    /// Comma-separated with quotes.
    Csv,
    /// PostgreSQL's binary layout.
    Binary,
}

/// How COPY data is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyOptions {
    /// FORMAT.
    pub format: CopyFormat,
    /// DELIMITER.
    pub delimiter: u8,
    /// NULL.
    pub null: String,
    /// HEADER.
    pub header: bool,
    /// QUOTE.
    pub quote: u8,
    /// ESCAPE.
    pub escape: u8,
}

/// A query, with EMIT taken off.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The tree; selects may hold WINDOW markers, see [`crate::take_clauses`].
    pub ast: Box<sqlparser::ast::Query>,
    /// EMIT CHANGES or FINAL.
    pub emit: Option<Emit>,
}

/// SUBSCRIBE TO (query) WITH (snapshot, progress).
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// What is watched.
    pub query: Query,
    /// Begin with the current result.
    pub snapshot: bool,
    /// A row of NULLs for an epoch without change.
    pub progress: bool,
}

/// EXPLAIN, with or without ANALYZE.
#[derive(Debug, Clone, PartialEq)]
pub struct Explain {
    /// Run it and measure.
    pub analyze: bool,
    /// What is explained.
    pub statement: Box<Statement>,
}

/// What SHOW lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShowObjects {
    /// Streams.
    Streams,
    /// Tables and materialized views.
    Tables,
    /// Views of both kinds.
    Views,
    /// Running queries.
    Queries,
    /// Topics.
    Topics,
    /// Functions.
    Functions,
}
