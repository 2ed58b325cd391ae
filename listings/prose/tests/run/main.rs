//! Runs every program on the pages, and shows that none was passed over.

mod fences;
mod wrong;

/// The tests that skeptic made of the pages.
#[allow(missing_docs)]
mod programs {
    include!(concat!(env!("OUT_DIR"), "/skeptic-tests.rs"));
}
