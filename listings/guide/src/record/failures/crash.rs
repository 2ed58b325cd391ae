//! Processes that die between two writes.

use super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![]
}
