//! Tests of the whole program with real processes, and of the rules of the house. There is no library here: `tests/tidy.rs`
//! holds the rules, `tests/spine` runs the program.
