//! The short course: plain LSPS2, BOLT 11 and online BOLT 12.
