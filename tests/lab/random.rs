//! Sequences that nobody thought of, and what they found.

use guide::lab::run::{Options, run};

/// The long form of this is `cargo run --release -- lab`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_breaks_no_invariant() {
    let options = Options { seed: 2, length: 10, time: None, steps: Some(20), jobs: 2, keep: None };
    let counts = run(&options).await.unwrap();
    assert_eq!(counts.steps, 20);
    assert!(counts.paid >= 4, "each recipient was paid at the end: {counts}");
}
