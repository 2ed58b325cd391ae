//! The prose: spelling, style, dates, sources.
