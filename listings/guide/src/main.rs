//! guide
fn main(){}
