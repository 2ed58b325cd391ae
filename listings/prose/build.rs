//! Hands the pages and the documents at the root to skeptic, which makes a test of each program.

use std::path::PathBuf;

fn main() {
    // A folder named here is watched with all that is in it, so a new page counts as a change.
    println!("cargo:rerun-if-changed=../../src");
    println!("cargo:rerun-if-changed=build.rs");
    // The root is not watched as a whole: it holds the target folder. These are the documents.
    let documents = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"];
    let mut pages = skeptic::markdown_files_of_directory("../../src");
    pages.extend(documents.iter().map(|name| PathBuf::from(format!("../../{name}"))));
    skeptic::generate_doc_tests(&pages);

    let target = std::env::var("TARGET").expect("cargo names the target");
    println!("cargo:rustc-env=SNIPPET_TARGET={target}");
}
