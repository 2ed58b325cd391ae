//! Code as HTML: figures for slices and fences, and whole files.

use std::fmt::Write;
use std::path::Path;

use crate::highlight;
use crate::html::escape;
use crate::sources::Place;

/// The page of the book that holds a whole source file, from the book's root.
pub(crate) fn page_of(file: &Path) -> String {
    format!("sources/{}.html", shown_path(file))
}

/// The link to a line of a source file.
pub(crate) fn link_to(place: &Place) -> String {
    match place.what.as_str() {
        "" => page_of(&place.file),
        _ => format!("{}#L{}", page_of(&place.file), place.lines.0),
    }
}

/// A source file's path as a reader sees it.
pub(crate) fn shown_path(file: &Path) -> String {
    let path = file.to_string_lossy().replace('\\', "/");
    path.strip_prefix("listings/").map(str::to_owned).unwrap_or(path)
}

/// A slice of a source file, with its name and the way to the rest.
pub(crate) fn slice(place: &Place, text: &str) -> String {
    let href = link_to(place);
    let caption = format!(
        "<span class=\"file\">{}</span> <span class=\"what\">{}</span> \
         <a class=\"whole\" href=\"{href}\">whole file</a>",
        escape(&shown_path(&place.file)),
        escape(&place.what),
    );
    figure("listing", "rust", Some(&caption), &highlight::rust(text))
}

/// A fence of the chapter itself.
pub(crate) fn fence(language: &str, text: &str) -> String {
    match language {
        "rust" => {
            let caption = "<span class=\"what\">a complete program, run by the tests</span>";
            figure("listing program", "rust", Some(caption), &highlight::rust(text))
        }
        other => figure("listing plain", other, None, &highlight::other(other, text)),
    }
}

/// Output that a test records.
pub(crate) fn output(name: &str, language: &str, text: &str) -> String {
    let caption = format!(
        "<span class=\"what\">recorded</span> <span class=\"file\">{}</span>",
        escape(name)
    );
    figure("listing output", language, Some(&caption), &highlight::other(language, text))
}

/// A part of a recording, under a caption of its own.
pub(crate) fn recorded(caption: &str, language: &str, text: &str) -> String {
    figure("listing output", language, Some(caption), &highlight::other(language, text.trim_end()))
}

/// Raw HTML without an empty line, which would end the block in Markdown.
fn figure(class: &str, language: &str, caption: Option<&str>, lines: &[String]) -> String {
    let mut out = format!("<figure class=\"{class}\" data-lang=\"{language}\">");
    if let Some(caption) = caption {
        let _ = write!(out, "<figcaption>{caption}</figcaption>");
    }
    out.push_str("<pre tabindex=\"0\"><code class=\"hl\">");
    for (at, line) in lines.iter().enumerate() {
        let newline = if at + 1 < lines.len() { "\n" } else { "" };
        let _ = write!(out, "<span class=\"l\"{}>{line}</span>{newline}", indent(line));
    }
    out.push_str("</code></pre></figure>\n");
    out
}

/// How far a line is indented, so that what wraps on a phone hangs below its own beginning.
fn indent(line: &str) -> String {
    match line.len() - line.trim_start_matches(' ').len() {
        0 => String::new(),
        spaces => format!(" style=\"--i:{spaces}\""),
    }
}

/// A whole file, each line with an id.
pub(crate) fn whole_file(lines: &[String]) -> String {
    let text = lines.join("\n");
    let mut out = String::from("<pre class=\"source\" tabindex=\"0\"><code class=\"hl\">");
    for (at, line) in highlight::rust(&text).iter().enumerate() {
        let number = at + 1;
        let newline = if number < lines.len() { "\n" } else { "" };
        let indent = indent(line);
        let _ = write!(out, "<span class=\"l\" id=\"L{number}\"{indent}>{line}</span>{newline}");
    }
    out.push_str("</code></pre>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_figure_has_an_empty_line() {
        let text = "fn a() {}\n\nfn b() {}\n";
        for html in [
            fence("rust", text),
            fence("text", "a\n\n\nb"),
            whole_file(&text.lines().map(str::to_owned).collect::<Vec<_>>()),
        ] {
            assert!(!html.trim_end().contains("\n\n"), "{html}");
        }
    }

    #[test]
    fn code_in_a_caption_is_text() {
        let place = Place {
            file: "listings/node/src/lsp.rs".into(),
            what: "From<X> for Y".into(),
            lines: (3, 4),
        };
        let html = slice(&place, "let a = b < c;");
        assert!(html.contains("From&lt;X&gt; for Y"));
        assert!(html.contains("b &lt; c"));
        assert!(html.contains("href=\"sources/node/src/lsp.rs.html#L3\""));
    }
}
