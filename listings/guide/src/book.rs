//! Builds the book, serves it, and reloads it.
