//! Text into HTML.

/// Escapes text for an element or a double-quoted attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

/// Escapes text that becomes part of a paragraph in Markdown.
pub(crate) fn escape_markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Text that Markdown must leave as it is, quotation marks and hyphens included.
pub(crate) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push_str(&format!("&#{};", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// A name as code that may break at its joints, as long names in narrow columns must.
pub(crate) fn name(name: &str) -> String {
    let mut out = String::from("<code>");
    let mut rest = name;
    while let Some(at) = rest.find(['_', '.', ':']) {
        let joint = if rest[at..].starts_with("::") { 2 } else { 1 };
        let (head, tail) = rest.split_at(at + joint);
        out.push_str(&escape(head));
        if !tail.is_empty() {
            out.push_str("<wbr>");
        }
        rest = tail;
    }
    out.push_str(&escape(rest));
    out.push_str("</code>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_break_at_their_joints_only() {
        assert_eq!(name("a_b.c::D<T>"), "<code>a_<wbr>b.<wbr>c::<wbr>D&lt;T&gt;</code>");
        assert_eq!(name("plain"), "<code>plain</code>");
    }

    #[test]
    fn literal_text_means_nothing_to_markdown() {
        assert_eq!(literal("`a` won't"), "&#96;a&#96; won&#39;t");
    }
}
