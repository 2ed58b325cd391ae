//! Force-closes, double-spends, reorganisations, and channels that do not open.
