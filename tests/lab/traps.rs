//! What LDK does where nobody guards it.
