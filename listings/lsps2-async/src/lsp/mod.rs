//! lsp/mod
