//! How long a payment can be held, in blocks.
