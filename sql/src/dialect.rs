//! PostgreSQL's dialect with back-quoted identifiers, as ksqlDB writes them.

use std::any::TypeId;

use sqlparser::ast::{CastKind, DataType, Expr};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

use crate::parser::parse_type;

/// The dialect every text is tokenised and parsed with.
#[derive(Debug, Default, Clone, Copy)]
pub struct MillpondDialect;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Delegates to PostgreSQL's dialect, whose parsing sqlparser selects by type identity.
macro_rules! as_postgres {
    ($($name:ident),* $(,)?) => { $(fn $name(&self) -> bool { POSTGRES.$name() })* };
}

impl Dialect for MillpondDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"' || ch == '`'
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        ch != '`' && POSTGRES.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    // A field of a struct is part of its name: what is behind it, a subscript or an operator, is for the field.
    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        if names_a_field(parser) {
            return Some(Ok(POSTGRES.prec_value(Precedence::Period)));
        }
        POSTGRES.get_next_precedence(parser)
    }

    // ksqlDB's nested types are no types of PostgreSQL's, in a cast neither.
    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        let opens = parser.peek_nth_token_ref(1).token == Token::LParen;
        (opens && parser.parse_keyword(Keyword::CAST)).then(|| cast(parser))
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    // EXCEPT lists come from DuckDB and BigQuery; streams with pseudo-columns need them.
    fn supports_select_wildcard_except(&self) -> bool {
        true
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    as_postgres!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_named_fn_args_with_colon_operator,
        supports_named_fn_args_with_expr_name,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_comma_separated_trim,
    );
}

/// Whether `-> name` comes next; a function, as a text, is PostgreSQL's key of a JSON object.
fn names_a_field(parser: &Parser<'_>) -> bool {
    parser.peek_token_ref().token == Token::Arrow
        && matches!(parser.peek_nth_token_ref(1).token, Token::Word(_))
        && parser.peek_nth_token_ref(2).token != Token::LParen
}

/// What follows the word CAST.
fn cast(parser: &mut Parser<'_>) -> Result<Expr, ParserError> {
    parser.expect_token(&Token::LParen)?;
    let expr = parser.parse_expr()?;
    parser.expect_keyword(Keyword::AS)?;
    let data_type = parse_type(parser)?;
    parser.expect_token(&Token::RParen)?;
    Ok(cast_to(expr, data_type))
}

/// `CAST(expr AS data_type)`.
pub fn cast_to(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}
