//! The tables of events to answer, from the matches without a wildcard in the nodes' code.
//!
//! The comment above an arm is the answer a reader sees. An arm without one hands the event to
//! `on_common_event`, where it has one; an arm with neither is a problem. As the compiler holds the
//! matches complete, so are the tables.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::sources::Sources;

/// A match whose arms say what a node does.
struct Match {
    file: &'static str,
    function: &'static str,
    of: &'static str,
}

/// What follows from nobody's doing stands last.
const LAST: [&str; 2] =
    ["Nothing to answer.", "Not raised here: the node does not switch on what raises it."];

const COMMON: Match =
    Match { file: "listings/node/src/events.rs", function: "on_common_event", of: "Event" };

fn matches_of(role: &str) -> Option<(Match, Option<Match>)> {
    let own = |file| Match { file, function: "on_event", of: "Event" };
    match role {
        "recipient" => Some((
            own("listings/node/src/recipient.rs"),
            Some(Match {
                file: "listings/lsps2-async/src/negotiate.rs",
                function: "advance",
                of: "LSPS2ClientEvent",
            }),
        )),
        "lsp" => Some((
            own("listings/node/src/lsp.rs"),
            Some(Match {
                file: "listings/node/src/lsp.rs",
                function: "on_lsps2_event",
                of: "LSPS2ServiceEvent",
            }),
        )),
        "payer" => Some((own("listings/node/src/payer.rs"), None)),
        "payer_lsp" => Some((own("listings/node/src/payer_lsp.rs"), None)),
        _ => None,
    }
}

/// The events of one arm and the answer; none if the arm hands them on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arm {
    variants: Vec<String>,
    answer: Option<String>,
}

/// The table of a role, in Markdown.
pub(crate) fn table(sources: &Sources, role: &str) -> Result<String, String> {
    let (own, liquidity) = matches_of(role).ok_or_else(|| format!("no role `{role}`"))?;
    let common = arms(sources, &COMMON)?;
    let mut rows: Vec<(&str, Vec<String>, String)> = Vec::new();
    let mut handed_on = Vec::new();
    for arm in arms(sources, &own)? {
        match arm.answer {
            Some(answer) => rows.push((own.of, arm.variants, answer)),
            None => handed_on.extend(arm.variants),
        }
    }
    if let Some(liquidity) = liquidity {
        for arm in arms(sources, &liquidity)? {
            let answer = arm.answer.ok_or_else(|| unanswered(&liquidity, &arm.variants))?;
            rows.push((liquidity.of, arm.variants, answer));
        }
    }
    for variant in handed_on {
        let answer = common
            .iter()
            .find(|arm| arm.variants.contains(&variant))
            .and_then(|arm| arm.answer.clone())
            .ok_or_else(|| unanswered(&COMMON, std::slice::from_ref(&variant)))?;
        rows.push((COMMON.of, vec![variant], answer));
    }
    let mut merged: Vec<(&str, Vec<String>, String)> = Vec::new();
    for (of, variants, answer) in rows {
        match merged.iter_mut().find(|row| row.0 == of && row.2 == answer) {
            Some(row) => row.1.extend(variants),
            None => merged.push((of, variants, answer)),
        }
    }
    merged.sort_by_key(|row| LAST.iter().position(|last| *last == row.2).map_or(0, |at| at + 1));
    let mut out = String::from("| Event | Answer |\n|---|---|\n");
    for (of, variants, answer) in merged {
        let links: Vec<_> = variants.iter().map(|variant| link(of, variant)).collect();
        let _ = writeln!(out, "| {} | {answer} |", links.join(", "));
    }
    Ok(out)
}

/// The names of all events that the nodes of this book can meet.
pub(crate) fn names(sources: &Sources) -> Result<BTreeSet<String>, String> {
    let mut names = BTreeSet::new();
    for role in ["recipient", "lsp", "payer", "payer_lsp"] {
        let (own, liquidity) = matches_of(role).ok_or_else(|| format!("no role `{role}`"))?;
        for of in [Some(own), liquidity].into_iter().flatten() {
            names.extend(arms(sources, &of)?.into_iter().flat_map(|arm| arm.variants));
        }
    }
    Ok(names)
}

fn unanswered(of: &Match, variants: &[String]) -> String {
    format!("{}: `{}` has no comment above {variants:?} to say its answer", of.file, of.function)
}

fn link(of: &str, variant: &str) -> String {
    let page = match of {
        "Event" => "lightning/events/enum.Event.html".to_owned(),
        other => format!("lightning_liquidity/lsps2/event/enum.{other}.html"),
    };
    format!("[`{variant}`](api:{page}#variant.{variant})")
}

fn arms(sources: &Sources, wanted: &Match) -> Result<Vec<Arm>, String> {
    let file = sources.file(Path::new(wanted.file))?;
    let text = file.lines.join("\n");
    let parsed = syn::parse_file(&text).map_err(|e| format!("{}: {e}", wanted.file))?;
    let mut finder = Finder { wanted, inside: false, found: None };
    finder.visit_file(&parsed);
    let found = finder.found.ok_or_else(|| {
        format!("{}: `{}` matches no `{}`", wanted.file, wanted.function, wanted.of)
    })?;
    found
        .arms
        .iter()
        .map(|arm| {
            let mut variants = Vec::new();
            variants_of(&arm.pat, wanted.of, &mut variants)
                .map_err(|what| format!("{}: {what}", wanted.file))?;
            let line = arm.pat.span().start().line;
            let mut comment: Vec<&str> = file.lines[..line - 1]
                .iter()
                .rev()
                .map_while(|line| line.trim().strip_prefix("//"))
                .map(str::trim)
                .filter(|line| !line.starts_with("ANCHOR"))
                .collect();
            comment.reverse();
            let answer = (!comment.is_empty()).then(|| comment.join(" "));
            Ok(Arm { variants, answer })
        })
        .collect()
}

struct Finder<'a> {
    wanted: &'a Match,
    inside: bool,
    found: Option<syn::ExprMatch>,
}

impl Visit<'_> for Finder<'_> {
    fn visit_item_fn(&mut self, function: &syn::ItemFn) {
        let within =
            std::mem::replace(&mut self.inside, function.sig.ident == self.wanted.function);
        syn::visit::visit_item_fn(self, function);
        self.inside = within;
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        let within =
            std::mem::replace(&mut self.inside, function.sig.ident == self.wanted.function);
        syn::visit::visit_impl_item_fn(self, function);
        self.inside = within;
    }

    fn visit_expr_match(&mut self, expression: &syn::ExprMatch) {
        let mut variants = Vec::new();
        let over = expression
            .arms
            .first()
            .is_some_and(|arm| variants_of(&arm.pat, self.wanted.of, &mut variants).is_ok());
        if self.inside && self.found.is_none() && over {
            self.found = Some(expression.clone());
        } else {
            syn::visit::visit_expr_match(self, expression);
        }
    }
}

/// The variants of an enum that a pattern names.
fn variants_of(pattern: &syn::Pat, of: &str, out: &mut Vec<String>) -> Result<(), String> {
    let path = match pattern {
        syn::Pat::Or(or) => {
            return or.cases.iter().try_for_each(|case| variants_of(case, of, out));
        }
        syn::Pat::Paren(inner) => return variants_of(&inner.pat, of, out),
        syn::Pat::Reference(inner) => return variants_of(&inner.pat, of, out),
        syn::Pat::Ident(binding) => match &binding.subpat {
            Some((_, inner)) => return variants_of(inner, of, out),
            None => return Err(format!("`{}` takes any {of}", binding.ident)),
        },
        syn::Pat::Struct(pattern) => &pattern.path,
        syn::Pat::TupleStruct(pattern) => &pattern.path,
        syn::Pat::Path(pattern) => &pattern.path,
        _ => return Err(format!("an arm names no variant of {of}")),
    };
    let segments: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    match segments.as_slice() {
        [.., name, variant] if name == of => {
            out.push(variant.clone());
            Ok(())
        }
        _ => Err(format!("`{}` is no variant of {of}", segments.join("::"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Match = Match { file: "listings/e.rs", function: "on_event", of: "Event" };

    fn arms_of(body: &str) -> Result<Vec<Arm>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("listings")).unwrap();
        let text = format!(
            "impl A {{\n    fn on_event(&self, event: Event) {{\n        match event {{\n{body}\n        }}\n    }}\n}}\n"
        );
        std::fs::write(folder.path().join("listings/e.rs"), text).unwrap();
        arms(&Sources::new(folder.path()), &OF)
    }

    #[test]
    fn an_answer_is_the_comment_above() {
        let arms = arms_of(
            "// Store it,\n// then say so.\nEvent::A { .. } | Event::B => x(),\nevent @ Event::C(_) => y(event),",
        )
        .unwrap();
        assert_eq!(arms[0].variants, ["A", "B"]);
        assert_eq!(arms[0].answer.as_deref(), Some("Store it, then say so."));
        assert_eq!(arms[1], Arm { variants: vec!["C".into()], answer: None });
    }

    #[test]
    fn an_anchor_around_an_arm_is_no_answer() {
        let anchor = ["// AN", "CHOR"].concat();
        let arms = arms_of(&format!(
            "{anchor}: a\n// Store it.\nEvent::A => x(),\n{anchor}_END: a\nEvent::B => y(),"
        ))
        .unwrap();
        assert_eq!(arms[0].answer.as_deref(), Some("Store it."));
        assert_eq!(arms[1].answer, None);
    }

    #[test]
    fn a_wildcard_is_no_table() {
        assert!(arms_of("// A.\nEvent::A => x(),\n// All.\n_ => y(),").is_err());
        assert!(arms_of("// A.\nEvent::A => x(),\n// All.\nother => y(other),").is_err());
    }

    #[test]
    fn the_roles_of_this_repository_have_complete_tables() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for role in ["recipient", "lsp", "payer", "payer_lsp"] {
            let table = table(&Sources::new(&root), role).unwrap();
            assert!(table.contains("PaymentClaimable"), "{role}");
            assert!(table.lines().count() > 5, "{role}");
        }
    }
}
