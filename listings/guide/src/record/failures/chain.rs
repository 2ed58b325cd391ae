//! Force-closes, double-spends, reorganisations, and channels that do not open.

use super::Scenario;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![]
}
