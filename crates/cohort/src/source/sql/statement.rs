//! One query and nothing else, found out before any database sees it.
//!
//! PostgreSQL finds out by itself that a text holds two statements; the driver of SQLite would run both. There this is what
//! stands between a query and an `ATTACH` of a file that nobody chose, so that it knows every kind of quote and comment of
//! SQLite, and refuses what it cannot follow.

/// Whose rules for quotes and comments hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Postgres,
    Sqlite,
}

/// Most characters of a query.
const QUERY_CHARS: usize = 20_000;
/// What a query can begin with.
const BEGINNINGS: [&str; 3] = ["select", "with", "values"];

/// The query without the semicolon at its end, or why it is none.
pub(super) fn one_query(text: &str, dialect: Dialect) -> Result<String, String> {
    if text.chars().count() > QUERY_CHARS {
        return Err(format!("it has more than {QUERY_CHARS} characters; make a view of it, and select from that"));
    }
    let mut reader = Reader { bytes: text.as_bytes(), at: 0, dialect };
    let (mut depth, mut end, mut first) = (0usize, None, None);
    while let Some(token) = reader.next()? {
        let line = || reader.line(token.from);
        if end.is_some() {
            return Err(format!("a second statement begins in line {}; leave one SELECT", line()));
        }
        match token.kind {
            Kind::Semicolon => end = Some(token.from),
            Kind::Open => depth += 1,
            Kind::Close => {
                let words = || format!("the bracket in line {} closes none", line());
                depth = depth.checked_sub(1).ok_or_else(words)?;
            }
            Kind::Other => {
                first.get_or_insert(&text[token.from..reader.at]);
            }
        }
    }
    if depth > 0 {
        return Err("a bracket is never closed".to_owned());
    }
    let first = first.ok_or_else(|| "it is empty; one SELECT is needed".to_owned())?;
    if !BEGINNINGS.iter().any(|word| first.eq_ignore_ascii_case(word)) {
        return Err(
            "it begins with something else than SELECT, WITH or VALUES; only data that are read can be registered"
                .to_owned(),
        );
    }
    Ok(text[..end.unwrap_or(text.len())].trim().to_owned())
}

struct Reader<'t> {
    bytes: &'t [u8],
    at: usize,
    dialect: Dialect,
}

#[derive(Clone, Copy)]
enum Kind {
    Semicolon,
    Open,
    Close,
    Other,
}

#[derive(Clone, Copy)]
struct Token {
    kind: Kind,
    from: usize,
}

impl Reader<'_> {
    fn line(&self, at: usize) -> usize {
        self.bytes[..at].iter().filter(|b| **b == b'\n').count() + 1
    }

    fn starts(&self, with: &[u8]) -> bool {
        self.bytes[self.at..].starts_with(with)
    }

    /// The next token; blanks and comments are none.
    fn next(&mut self) -> Result<Option<Token>, String> {
        loop {
            let Some(byte) = self.bytes.get(self.at).copied() else { return Ok(None) };
            if byte.is_ascii_whitespace() {
                self.at += 1;
            } else if self.starts(b"--") {
                let rest = &self.bytes[self.at..];
                self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            } else if self.starts(b"/*") {
                self.comment()?;
            } else {
                return self.token(byte).map(Some);
            }
        }
    }

    fn token(&mut self, byte: u8) -> Result<Token, String> {
        let from = self.at;
        let is_sqlite = self.dialect == Dialect::Sqlite;
        let mut kind = Kind::Other;
        match byte {
            b';' => kind = Kind::Semicolon,
            b'(' => kind = Kind::Open,
            b')' => kind = Kind::Close,
            0 => return Err(format!("a NUL character in line {}", self.line(from))),
            b'\'' => return self.quoted(from, b'\'', false),
            b'"' => return self.quoted(from, b'"', false),
            b'`' if is_sqlite => return self.quoted(from, b'`', false),
            b'[' if is_sqlite => return self.bracketed(from),
            // What SQLite takes for a variable may hold quotes and brackets of its own.
            b'$' | b'?' | b'@' | b':' | b'#' if is_sqlite => {
                return Err(format!("line {} has a placeholder; write the value itself", self.line(from)));
            }
            b'$' => {
                if let Some(tag) = self.dollar_tag() {
                    return self.dollar_quoted(from, tag);
                }
            }
            _ if is_word(byte) => {
                while self.bytes.get(self.at).is_some_and(|b| is_word(*b) || (!is_sqlite && *b == b'$')) {
                    self.at += 1;
                }
                let is_escaped = matches!(&self.bytes[from..self.at], b"e" | b"E") && !is_sqlite;
                return match self.bytes.get(self.at) {
                    Some(b'\'') if is_escaped => self.quoted(from, b'\'', true),
                    _ => Ok(Token { kind, from }),
                };
            }
            _ => {}
        }
        self.at += 1;
        Ok(Token { kind, from })
    }

    /// A text or name in quotes, which stand twice where one is meant.
    fn quoted(&mut self, from: usize, quote: u8, has_escapes: bool) -> Result<Token, String> {
        self.at += 1;
        while let Some(byte) = self.bytes.get(self.at).copied() {
            let next = self.bytes.get(self.at + 1).copied();
            match byte {
                b'\\' if has_escapes => self.at += 2,
                _ if byte == quote && next == Some(quote) => self.at += 2,
                _ if byte == quote => {
                    self.at += 1;
                    return Ok(Token { kind: Kind::Other, from });
                }
                _ => self.at += 1,
            }
        }
        Err(format!("the quote in line {} is never closed", self.line(from)))
    }

    fn bracketed(&mut self, from: usize) -> Result<Token, String> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|b| *b == b']');
        self.at += 1 + end.ok_or_else(|| format!("the bracket in line {} is never closed", self.line(from)))?;
        Ok(Token { kind: Kind::Other, from })
    }

    /// The whole of `$$` or `$tag$` at this place.
    fn dollar_tag(&self) -> Option<Vec<u8>> {
        let rest = &self.bytes[self.at + 1..];
        let length = rest.iter().position(|b| !is_word(*b))?;
        let is_tag = rest[length] == b'$' && !rest.first().is_some_and(u8::is_ascii_digit);
        is_tag.then(|| self.bytes[self.at..self.at + length + 2].to_vec())
    }

    fn dollar_quoted(&mut self, from: usize, tag: Vec<u8>) -> Result<Token, String> {
        self.at += tag.len();
        let end = self.bytes[self.at..].windows(tag.len()).position(|here| here == tag);
        self.at += tag.len() + end.ok_or_else(|| format!("the quote in line {} is never closed", self.line(from)))?;
        Ok(Token { kind: Kind::Other, from })
    }

    /// Passes over a comment; PostgreSQL has comments within comments.
    fn comment(&mut self) -> Result<(), String> {
        let (from, mut depth) = (self.at, 0usize);
        while self.at < self.bytes.len() {
            if self.starts(b"*/") {
                self.at += 2;
                depth -= 1;
                if depth == 0 {
                    return Ok(());
                }
            } else if self.starts(b"/*") && (depth == 0 || self.dialect == Dialect::Postgres) {
                self.at += 2;
                depth += 1;
            } else {
                self.at += 1;
            }
        }
        Err(format!("the comment in line {} is never closed", self.line(from)))
    }
}

/// A byte of a word; every byte of a character that is not ASCII is.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Dialect; 2] = [Dialect::Postgres, Dialect::Sqlite];

    #[test]
    fn one_query_loses_only_its_semicolon() {
        for dialect in BOTH {
            for (text, query) in [
                ("SELECT 1", "SELECT 1"),
                (" select ';' -- ; one;\n ; -- the end\n", "select ';' -- ; one;"),
                ("/* why; */ WITH a AS (SELECT 1) SELECT * FROM a;", "/* why; */ WITH a AS (SELECT 1) SELECT * FROM a"),
                ("(SELECT 'it''s' AS \"a;\"\"b\")", "(SELECT 'it''s' AS \"a;\"\"b\")"),
                ("values (1), (2)", "values (1), (2)"),
                ("SELECT 'Müller;' AS größe", "SELECT 'Müller;' AS größe"),
            ] {
                assert_eq!(one_query(text, dialect).as_deref(), Ok(query), "{dialect:?}");
            }
        }
        let postgres =
            ["SELECT E'\\';'", "SELECT $$;)$$", "SELECT $a$ ;$b$ $a$", "SELECT 1 /* a /* ; */ ; */", "SELECT a$b$c"];
        for text in postgres {
            assert_eq!(one_query(text, Dialect::Postgres).as_deref(), Ok(text));
        }
        for text in ["SELECT [a;b], `c;``d` FROM t", "SELECT '\\'", "SELECT 1 /* a /* */"] {
            assert_eq!(one_query(text, Dialect::Sqlite).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_not_one_query_is_told_with_its_line() {
        for dialect in BOTH {
            for (text, says) in [
                ("", "it is empty"),
                ("-- nothing\n", "it is empty"),
                ("SELECT 1;\nDROP TABLE a", "second statement begins in line 2"),
                ("SELECT 1) SELECT 2; ATTACH 'f' AS f; SELECT (1", "the bracket in line 1 closes none"),
                ("SELECT (1", "a bracket is never closed"),
                ("SELECT\n'a", "the quote in line 2 is never closed"),
                ("SELECT 1 /* a", "the comment in line 1 is never closed"),
                ("DELETE FROM a RETURNING *", "only data that are read"),
                ("ATTACH 'f' AS f", "only data that are read"),
                ("PRAGMA table_info(a)", "only data that are read"),
                ("SELECT 1\0", "a NUL character in line 1"),
            ] {
                let refused = one_query(text, dialect).unwrap_err();
                assert!(refused.contains(says), "{dialect:?} {text}: {refused}");
            }
        }
        for text in ["SELECT $a(')", "SELECT ?1", "SELECT :a", "SELECT @a", "SELECT #a"] {
            assert!(one_query(text, Dialect::Sqlite).unwrap_err().contains("placeholder"), "{text}");
        }
        // What is a quote in one of them is none in the other.
        assert!(one_query("SELECT '\\'; DROP TABLE a --'", Dialect::Sqlite).is_err());
        assert!(one_query("SELECT 1 /* a /* */ ; DROP TABLE a --*/", Dialect::Sqlite).is_err());
        assert!(one_query(&"x".repeat(QUERY_CHARS + 1), Dialect::Sqlite).is_err());
    }
}
