//! Texts of policies with wildcards and variables: `arn:aws:s3:::b/${aws:username}/*`.
//!
//! `*` stands for any characters, `?` for one. `${key}` and `${key, 'default'}` take a value of the request; `${*}`,
//! `${?}` and `${$}` are these characters themselves. A value that is put in is text: a wildcard in it is none.
//!
//! Invariant: matching takes time in the product of both lengths at most, whatever the wildcards.

use super::condition::Key;
use super::evaluate::Context;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    /// `*`
    Any,
    /// `?`
    One,
    Variable {
        key: Key,
        default: Option<Box<str>>,
    },
}

/// What characters a pattern's text gives a meaning to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Syntax {
    /// Wildcards and variables.
    Full,
    /// Variables alone.
    Variables,
    /// Wildcards alone: policies of the version of 2008.
    Wildcards,
    Plain,
}

impl Syntax {
    fn has_wildcards(self) -> bool {
        matches!(self, Syntax::Full | Syntax::Wildcards)
    }

    fn has_variables(self) -> bool {
        matches!(self, Syntax::Full | Syntax::Variables)
    }

    /// The same without wildcards.
    pub fn literal(self) -> Syntax {
        match self.has_variables() {
            true => Syntax::Variables,
            false => Syntax::Plain,
        }
    }
}

/// A pattern whose variables have values.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    One,
}

impl Pattern {
    /// Reads a pattern; `None` for a variable that has no end or no name.
    pub fn parse(text: &str, syntax: Syntax) -> Option<Pattern> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let piece = match first {
                '*' if syntax.has_wildcards() => Piece::Any,
                '?' if syntax.has_wildcards() => Piece::One,
                '$' if syntax.has_variables() && rest.starts_with("${") => {
                    let (inner, after) = rest[2..].split_once('}')?;
                    rest = after;
                    match variable(inner)? {
                        Piece::Text(text) => plain.push_str(&text),
                        piece => {
                            flush(&mut pieces, &mut plain);
                            pieces.push(piece);
                        }
                    }
                    continue;
                }
                other => {
                    plain.push(other);
                    rest = &rest[other.len_utf8()..];
                    continue;
                }
            };
            flush(&mut pieces, &mut plain);
            pieces.push(piece);
            rest = &rest[1..];
        }
        flush(&mut pieces, &mut plain);
        Some(Pattern(pieces.into()))
    }

    /// The pattern with the values of a request; `None` if it has none for a variable.
    pub fn resolve(&self, context: &impl Context) -> Option<Resolved> {
        let mut tokens = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Any => tokens.push(Token::Any),
                Piece::One => tokens.push(Token::One),
                Piece::Text(text) => tokens.extend(text.chars().map(Token::Char)),
                Piece::Variable { key, default } => match (context.one(key), default) {
                    (Some(value), _) => tokens.extend(value.chars().map(Token::Char)),
                    (None, Some(default)) => tokens.extend(default.chars().map(Token::Char)),
                    (None, None) => return None,
                },
            }
        }
        Some(Resolved(tokens))
    }

    /// Whether the text is the same whatever the request, and has no wildcard: then what it is.
    pub fn as_text(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// What it begins with before the first wildcard or variable.
    pub fn beginning(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether it begins as the text does: what costs nothing is asked first.
    pub fn may_match(&self, text: &str) -> bool {
        text.starts_with(self.beginning())
    }

    pub fn has_variables(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Variable { .. }))
    }
}

impl Resolved {
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        matches(&self.0, &text)
    }

    pub fn matches_ignoring_case(&self, text: &str) -> bool {
        let lower = |c: char| c.to_lowercase();
        let tokens: Vec<Token> = self
            .0
            .iter()
            .flat_map(|&token| match token {
                Token::Char(c) => lower(c).map(Token::Char).collect::<Vec<_>>(),
                other => vec![other],
            })
            .collect();
        let text: Vec<char> = text.chars().flat_map(lower).collect();
        matches(&tokens, &text)
    }

    /// As an ARN: each of the six parts between colons for itself.
    pub fn matches_arn(&self, arn: &str) -> bool {
        let mut parts = self.0.splitn(6, |token| *token == Token::Char(':'));
        let mut texts = arn.splitn(6, ':');
        loop {
            match (parts.next(), texts.next()) {
                (None, None) => return true,
                (Some(part), Some(text)) if matches(part, &text.chars().collect::<Vec<_>>()) => {}
                _ => return false,
            }
        }
    }
}

/// Whether a text has a pattern of `*` and `?`: where it fits no further, the last `*` takes one character more.
fn matches(tokens: &[Token], text: &[char]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut last_any: Option<(usize, usize)> = None;
    while here < text.len() {
        match tokens.get(at) {
            Some(Token::Any) => {
                last_any = Some((at + 1, here));
                at += 1;
                continue;
            }
            Some(Token::One) => {
                (at, here) = (at + 1, here + 1);
                continue;
            }
            Some(Token::Char(c)) if *c == text[here] => {
                (at, here) = (at + 1, here + 1);
                continue;
            }
            Some(Token::Char(_)) | None => {}
        }
        let Some((after, from)) = last_any else {
            return false;
        };
        last_any = Some((after, from + 1));
        (at, here) = (after, from + 1);
    }
    tokens[at..].iter().all(|token| *token == Token::Any)
}

/// Whether a text without variables has a pattern of wildcards.
pub fn glob(pattern: &str, text: &str) -> bool {
    let tokens: Vec<Token> = pattern
        .chars()
        .map(|c| match c {
            '*' => Token::Any,
            '?' => Token::One,
            other => Token::Char(other),
        })
        .collect();
    matches(&tokens, &text.chars().collect::<Vec<_>>())
}

fn variable(inner: &str) -> Option<Piece> {
    if matches!(inner, "*" | "?" | "$") {
        return Some(Piece::Text(inner.into()));
    }
    let (name, default) = match inner.split_once(',') {
        None => (inner.trim(), None),
        Some((name, default)) => {
            let quoted = default.trim().strip_prefix('\'')?.strip_suffix('\'')?;
            (name.trim(), Some(quoted.into()))
        }
    };
    let key = Key::parse(name)?;
    Some(Piece::Variable { key, default })
}

fn flush(pieces: &mut Vec<Piece>, plain: &mut String) {
    if !plain.is_empty() {
        pieces.push(Piece::Text(std::mem::take(plain).into()));
    }
}
