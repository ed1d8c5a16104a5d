//! Measures; each figure beside its floor.

fn main() {}
