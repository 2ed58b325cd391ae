//! Recorded output that pages show, compared with fresh runs.
