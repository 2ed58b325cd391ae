//! guide
fn main() {}
