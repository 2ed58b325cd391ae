//! Misspelt words, in the book, its data, the documents, the theme and the sources that pages show.

use super::{Document, chapters, data, files, none, read, root, top};
use book::Sources;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use typos::tokens::{Case, Identifier, Tokenizer, Word};
use typos::{Dictionary, Status};

/// `src/data/spelling.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelling {
    #[serde(default)]
    allow: Vec<Allowed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allowed {
    word: String,
    reason: String,
}

/// Common misspellings. It takes no side between British and American.
struct Misspellings(HashMap<String, &'static [&'static str]>);

impl Misspellings {
    fn load() -> Self {
        let entries = typos_dict::WORD.map.entries();
        Self(entries.map(|(word, right)| (word.into_inner().to_lowercase(), *right)).collect())
    }
}

impl Dictionary for Misspellings {
    fn correct_ident<'s>(&'s self, _: Identifier<'_>) -> Option<Status<'s>> {
        None
    }

    fn correct_word<'s>(&'s self, word: Word<'_>) -> Option<Status<'s>> {
        if word.case() == Case::None {
            return None;
        }
        let right = self.0.get(&word.token().to_lowercase())?;
        Some(match right {
            [] => Status::Invalid,
            right => Status::Corrections(right.iter().map(|word| Cow::Borrowed(*word)).collect()),
        })
    }
}

/// The misspelt words of a text, with the line and what may have been meant.
fn misspelt(text: &str, dictionary: &Misspellings) -> Vec<(usize, String, String)> {
    let tokenizer = Tokenizer::new();
    let found = typos::check_str(text, &tokenizer, dictionary).map(|typo| {
        let line = text[..typo.byte_offset].matches('\n').count() + 1;
        let meant = match &typo.corrections {
            Status::Corrections(words) => words.join(", "),
            _ => "?".to_owned(),
        };
        (line, typo.typo.to_string(), meant)
    });
    found.collect()
}

#[test]
fn words_are_spelt_right() {
    let dictionary = Misspellings::load();
    let allowed: Spelling = data("src/data/spelling.toml");
    let mut needed = BTreeSet::new();
    let mut problems = Vec::new();
    for Document { name, text } in documents() {
        for (line, word, meant) in misspelt(&text, &dictionary) {
            match allowed.allow.iter().find(|allowed| allowed.word == word) {
                Some(allowed) => {
                    needed.insert(&allowed.word);
                }
                None => problems.push(format!("{name}:{line}: `{word}`: {meant}?")),
            }
        }
    }
    for Allowed { word, reason } in &allowed.allow {
        if !needed.contains(word) {
            problems.push(format!("src/data/spelling.toml: `{word}` stands nowhere any more"));
        }
        if reason.is_empty() {
            problems.push(format!("src/data/spelling.toml: `{word}` is allowed without a reason"));
        }
    }
    none(&problems);
}

#[test]
fn both_english_spellings_are_right_and_neither_is_a_misspelling() {
    let dictionary = Misspellings::load();
    let both = "serialise serialize behaviour behavior colour color licence license centre center";
    assert_eq!(misspelt(both, &dictionary), []);
    let found = misspelt("one\nteh recieve_htlc\n", &dictionary);
    let found: Vec<_> = found.iter().map(|(line, word, _)| (*line, word.as_str())).collect();
    assert_eq!(found, [(2, "teh"), (2, "recieve")]);
}

fn documents() -> Vec<Document> {
    let mut documents = chapters();
    documents.extend(top());
    documents.extend(files("src/claims", &["toml"]));
    documents.extend(files("src/data", &["toml"]));
    documents.retain(|document| document.name != "src/data/spelling.toml");
    documents.push(read("book.toml".into()));
    documents.push(read("src/SUMMARY.md".into()));
    documents.push(read("theme/index.hbs".into()));
    documents.push(read("theme/book.js".into()));
    documents.extend(Sources::new(root()).rust_files().into_iter().map(read));
    // This file shows misspellings.
    documents.retain(|document| document.name != "tests/prose/spelling.rs");
    documents
}
