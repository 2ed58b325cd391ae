//! Processes that die between two writes.
