//! Limits on a statement, checked on its tokens before anything recursive sees it.
//!
//! sqlparser and DataFusion recurse over the tree; a flat chain of a hundred thousand ORs or ten
//! thousand parentheses would overflow the stack, which no handler can catch.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};

/// Longest text of one message.
pub const MAX_STATEMENT_BYTES: usize = 16 << 20;
/// Most tokens of a statement that is not an INSERT.
pub const MAX_TOKENS: usize = 100_000;
/// Most tokens of an INSERT, whose rows are read one after the other.
const MAX_INSERT_TOKENS: usize = 8_000_000;
/// Deepest nesting of parentheses, brackets and CASE.
pub const MAX_NESTING: usize = 100;
/// Most operators in one expression between commas and parentheses.
pub const MAX_EXPRESSION_OPERATORS: usize = 500;

/// Checks the tokens of one statement.
///
/// # Errors
/// [`Error::TooComplex`] names the limit.
pub(crate) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let insert =
        matches!(tokens.first().map(|t| &t.token), Some(Token::Word(w)) if w.keyword == Keyword::INSERT);
    let most = if insert { MAX_INSERT_TOKENS } else { MAX_TOKENS };
    if tokens.len() > most {
        return Err(Error::TooComplex { what: "number of tokens in a statement", limit: most });
    }
    let mut operators = vec![0usize];
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => operators.push(0),
            Token::Word(w) if w.keyword == Keyword::CASE => operators.push(0),
            Token::RParen | Token::RBracket | Token::RBrace if operators.len() > 1 => {
                operators.pop();
            }
            Token::Word(w) if w.keyword == Keyword::END && operators.len() > 1 => {
                operators.pop();
            }
            Token::Comma => reset(&mut operators),
            token if is_operator(token) => {
                if let Some(count) = operators.last_mut() {
                    *count += 1;
                    if *count > MAX_EXPRESSION_OPERATORS {
                        return Err(Error::TooComplex {
                            what: "number of operators in an expression",
                            limit: MAX_EXPRESSION_OPERATORS,
                        });
                    }
                }
            }
            _ => {}
        }
        if operators.len() > MAX_NESTING {
            return Err(Error::TooComplex { what: "nesting of expressions", limit: MAX_NESTING });
        }
    }
    Ok(())
}

fn reset(operators: &mut [usize]) {
    if let Some(count) = operators.last_mut() {
        *count = 0;
    }
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(w) => matches!(
            w.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::JOIN
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::BETWEEN
        ),
        Token::Plus
        | Token::Minus
        | Token::Mul
        | Token::Div
        | Token::Mod
        | Token::StringConcat
        | Token::Eq
        | Token::Neq
        | Token::Lt
        | Token::Gt
        | Token::LtEq
        | Token::GtEq
        | Token::DoubleColon
        | Token::Tilde
        | Token::ExclamationMark
        | Token::Caret => true,
        _ => false,
    }
}
