//! A regtest chain.
