//! The flag tables against LDK's defaults and our nodes.
