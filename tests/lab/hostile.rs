//! Strangers, floods and clocks.
