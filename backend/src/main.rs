//! `isopathd`.

fn main() {}
