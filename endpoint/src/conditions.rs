//! Decides how a condition is told: one series for each status that it can have, so that none ever vanishes.

use lamina_crds::conditions::{Condition, ConditionStatus};

/// The labels `condition` and `status`, with 1 for the status that it has and 0 for the others.
pub fn by_status(condition: &Condition) -> [([String; 2], f64); 3] {
    [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown].map(|status| {
        let holds = if condition.status == status { 1.0 } else { 0.0 };
        ([format!("{:?}", condition.type_), format!("{status:?}")], holds)
    })
}
