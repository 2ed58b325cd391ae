//! Strangers, floods and clocks.

use super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![]
}
