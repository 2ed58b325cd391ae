//! The built book: links, fragments, logs.
