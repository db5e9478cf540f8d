//! ubique
fn main() {}
