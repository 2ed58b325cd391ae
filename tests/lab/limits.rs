//! Leases that have run out, amounts outside the limits, payments in parts.
