//! What the stock `mdbook` runs, and `check` for those who write.

use std::io::{stdin, stdout};
use std::process::ExitCode;

use anyhow::Result;
use book::Guide;
use mdbook_preprocessor::{Preprocessor, parse_input};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        // mdBook asks this of each renderer; ours changes Markdown only.
        ["supports", renderer] => {
            return if *renderer == "html" { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
        ["check"] => check(),
        [] => preprocess(),
        _ => {
            eprintln!("mdbook-guide is run by mdbook; `mdbook-guide check` checks the chapters");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e:#}");
            ExitCode::FAILURE
        }
    }
}

fn preprocess() -> Result<()> {
    let (context, book) = parse_input(stdin().lock())?;
    let book = Guide.run(&context, book)?;
    serde_json::to_writer(stdout().lock(), &book)?;
    Ok(())
}

fn check() -> Result<()> {
    let (problems, shown) = book::check(&std::env::current_dir()?)?;
    problems.into_result()?;
    println!("{} slices shown, no problem found", shown.len());
    Ok(())
}
