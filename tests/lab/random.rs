//! Sequences that nobody thought of.
