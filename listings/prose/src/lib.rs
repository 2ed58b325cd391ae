//! Runs the programs that stand on the guide's pages.
//!
//! Nearly all code on the pages is a slice of a compiled crate. The rest are whole programs in
//! fences, each marked `rust`; skeptic compiles each against this crate's dependencies and runs it.
//! The build script hands it every page and the documents at the repository's root. A program without
//! `fn main()` is put into one, as rustdoc does.
//!
//! Skeptic 0.14.2 knows editions up to 2021, so the programs on pages are built as that edition.
//!
//! Code that a page shows because it is wrong lives in `wrong/`, and a test names the error it gets.
