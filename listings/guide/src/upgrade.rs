//! Builds the workspace against another LDK version and says what breaks.
