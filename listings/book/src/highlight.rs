//! Colours code at build time, so that a page needs no script for it and does not shift.

use std::fmt::Write;

use ra_ap_rustc_lexer::{FrontmatterAllowed, LiteralKind, Token, TokenKind, tokenize};

use crate::html::escape;

const KEYWORDS: [&str; 40] = [
    "as", "async", "await", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern",
    "false", "fn", "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub",
    "ref", "return", "self", "Self", "static", "struct", "super", "trait", "true", "type", "union",
    "unsafe", "use", "where", "while", "yield",
];

/// The lines of a Rust text, each as HTML without its newline.
pub(crate) fn rust(text: &str) -> Vec<String> {
    let tokens: Vec<(TokenKind, &str)> = split(text);
    let mut out = Lines::default();
    let mut at = 0;
    while at < tokens.len() {
        let (kind, token) = tokens[at];
        if kind == TokenKind::Pound
            && let Some(end) = attribute_end(&tokens[at..])
        {
            let attribute: String = tokens[at..at + end].iter().map(|(_, token)| *token).collect();
            out.push("a", &attribute);
            at += end;
            continue;
        }
        let next = tokens[at + 1..].first().map(|(kind, _)| *kind);
        let declared = at >= 2 && tokens[at - 2].1 == "fn";
        out.push(class(kind, token, next, declared), token);
        at += 1;
    }
    out.finish()
}

fn split(text: &str) -> Vec<(TokenKind, &str)> {
    let mut rest = text;
    tokenize(text, FrontmatterAllowed::No)
        .map(|Token { kind, len }| {
            let (token, tail) = rest.split_at(len as usize);
            rest = tail;
            (kind, token)
        })
        .collect()
}

/// How many tokens an attribute (`#[…]`, `#![…]`) takes.
fn attribute_end(tokens: &[(TokenKind, &str)]) -> Option<usize> {
    let open = match (tokens.get(1)?.0, tokens.get(2).map(|token| token.0)) {
        (TokenKind::OpenBracket, _) => 1,
        (TokenKind::Bang, Some(TokenKind::OpenBracket)) => 2,
        _ => return None,
    };
    let mut depth = 0;
    for (at, (kind, _)) in tokens.iter().enumerate().skip(open) {
        match kind {
            TokenKind::OpenBracket => depth += 1,
            TokenKind::CloseBracket if depth == 1 => return Some(at + 1),
            TokenKind::CloseBracket => depth -= 1,
            _ => {}
        }
    }
    None
}

fn class(kind: TokenKind, token: &str, next: Option<TokenKind>, declared: bool) -> &'static str {
    match kind {
        TokenKind::LineComment { .. } | TokenKind::BlockComment { .. } => "c",
        TokenKind::Lifetime { .. } | TokenKind::RawLifetime => "y",
        TokenKind::Literal {
            kind: LiteralKind::Int { .. } | LiteralKind::Float { .. }, ..
        } => "n",
        TokenKind::Literal { .. } => "s",
        TokenKind::Ident if KEYWORDS.contains(&token) => "k",
        TokenKind::Ident if token.starts_with(char::is_uppercase) => "t",
        TokenKind::Ident | TokenKind::RawIdent
            if declared || matches!(next, Some(TokenKind::OpenParen | TokenKind::Bang)) =>
        {
            "f"
        }
        _ => "",
    }
}

/// The lines of a text in another language of the book's fences.
pub(crate) fn other(language: &str, text: &str) -> Vec<String> {
    match language {
        "json" | "toml" => keyed(text),
        "console" => text
            .lines()
            .map(|line| match line.strip_prefix("$ ") {
                Some(command) => format!("<span class=\"p\">$ </span>{}", escape(command)),
                None => escape(line),
            })
            .collect(),
        _ => text.lines().map(escape).collect(),
    }
}

/// JSON and TOML: keys, strings, numbers and comments.
fn keyed(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let mut out = Lines::default();
            let mut rest = line;
            while let Some(c) = rest.chars().next() {
                let (length, class) = match c {
                    '"' => {
                        let end = string_end(rest);
                        let key = rest[end..].trim_start().starts_with(':');
                        (end, if key { "k" } else { "s" })
                    }
                    '#' => (rest.len(), "c"),
                    c if c.is_alphanumeric() || matches!(c, '-' | '_') => {
                        let end = rest
                            .find(|c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '.'))
                            .unwrap_or(rest.len());
                        let key = rest[end..].trim_start().starts_with('=');
                        let number = c.is_ascii_digit() || matches!(&rest[..end], "true" | "false");
                        (
                            end,
                            if key {
                                "k"
                            } else if number {
                                "n"
                            } else {
                                ""
                            },
                        )
                    }
                    c => (c.len_utf8(), ""),
                };
                out.push(class, &rest[..length]);
                rest = &rest[length..];
            }
            out.finish().concat()
        })
        .collect()
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Collects coloured tokens, which may span lines, line by line.
#[derive(Default)]
struct Lines {
    done: Vec<String>,
    current: String,
}

impl Lines {
    fn push(&mut self, class: &str, token: &str) {
        for (at, part) in token.split('\n').enumerate() {
            if at > 0 {
                self.done.push(std::mem::take(&mut self.current));
            }
            if part.is_empty() {
                continue;
            }
            let _ = match class {
                "" => write!(self.current, "{}", escape(part)),
                class => write!(self.current, "<span class=\"{class}\">{}</span>", escape(part)),
            };
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(html: &str) -> String {
        let mut out = String::new();
        let mut inside = false;
        for c in html.chars() {
            match c {
                '<' => inside = true,
                '>' => inside = false,
                c if !inside => out.push(c),
                _ => {}
            }
        }
        out.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
    }

    #[test]
    fn colours_change_no_character_of_any_source_here() {
        for text in [include_str!("highlight.rs"), include_str!("sources.rs")] {
            let lines = rust(text);
            assert_eq!(lines.len(), text.lines().count());
            for (html, line) in lines.iter().zip(text.lines()) {
                assert_eq!(text_of(html), line);
            }
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let html = rust("#[test]\nfn pay<'a>() -> Offer { call!(\"x\", 7) } // why").join("\n");
        for expected in [
            "<span class=\"a\">#[test]</span>",
            "<span class=\"k\">fn</span>",
            "<span class=\"f\">pay</span>",
            "<span class=\"y\">'a</span>",
            "<span class=\"t\">Offer</span>",
            "<span class=\"f\">call</span>",
            "<span class=\"s\">&quot;x&quot;</span>",
            "<span class=\"n\">7</span>",
            "<span class=\"c\">// why</span>",
        ] {
            assert!(html.contains(expected), "{expected} is not in {html}");
        }
    }

    #[test]
    fn json_keys_are_not_strings() {
        let html = other("json", "{\"min_fee_msat\": \"2\\\"5\", \"n\": 4}").concat();
        assert!(html.contains("<span class=\"k\">&quot;min_fee_msat&quot;</span>"));
        assert!(html.contains("<span class=\"s\">&quot;2\\&quot;5&quot;</span>"));
        assert!(html.contains("<span class=\"n\">4</span>"));
    }
}
