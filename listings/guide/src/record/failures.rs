//! The failures that show on whole nodes: one scenario, or one scene, for each.

use super::Scenario;

/// All of them.
pub(super) fn scenarios() -> Vec<Scenario> {
    Vec::new()
}
