//! Leases that have run out, amounts outside the limits, payments in parts.

use super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![]
}
