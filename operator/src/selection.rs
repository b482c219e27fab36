//! Decides which hosts a selector means: Kubernetes' rules for label selectors.

use std::collections::BTreeMap;

use lamina_crds::slice_topology::{HostSelector, LabelExpression, LabelOperator, LabelValue};

/// Whether a host with these labels is meant. An empty selector means nothing.
pub fn selects(selector: &HostSelector, labels: &BTreeMap<String, String>) -> bool {
    let HostSelector { match_labels, match_expressions } = selector;
    let written = !match_labels.is_empty() || !match_expressions.is_empty();
    let carries = |(key, LabelValue(value)): (&String, &LabelValue)| labels.get(key) == Some(value);
    written
        && match_labels.iter().all(carries)
        && match_expressions.iter().all(|expression| satisfies(expression, labels))
}

fn satisfies(expression: &LabelExpression, labels: &BTreeMap<String, String>) -> bool {
    let LabelExpression { key, operator, values } = expression;
    let value = labels.get(key);
    let listed = value.is_some_and(|value| values.iter().any(|LabelValue(listed)| listed == value));
    match operator {
        LabelOperator::In => listed,
        LabelOperator::NotIn => !listed,
        LabelOperator::Exists => value.is_some(),
        LabelOperator::DoesNotExist => value.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(selector: serde_json::Value) -> bool {
        let selector: HostSelector = serde_json::from_value(selector).expect("a legal selector");
        selects(&selector, &BTreeMap::from([("role".to_owned(), "edge".to_owned())]))
    }

    #[test]
    fn all_parts_of_a_selector_must_match() {
        assert!(selected(serde_json::json!({ "matchLabels": { "role": "edge" } })));
        assert!(!selected(serde_json::json!({ "matchLabels": { "role": "edge", "zone": "a" } })));
        let edge_without_zone = serde_json::json!({ "matchLabels": { "role": "edge" },
            "matchExpressions": [{ "key": "zone", "operator": "Exists" }] });
        assert!(!selected(edge_without_zone));
    }

    #[test]
    fn an_absent_label_satisfies_not_in_and_does_not_exist() {
        let with = |operator: &str, key: &str, values: &[&str]| serde_json::json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] });
        assert!(selected(with("NotIn", "zone", &["a"])));
        assert!(selected(with("DoesNotExist", "zone", &[])));
        assert!(selected(with("In", "role", &["core", "edge"])));
        assert!(!selected(with("NotIn", "role", &["edge"])));
        assert!(!selected(with("In", "zone", &["a"])));
    }

    #[test]
    fn an_empty_selector_means_no_host() {
        assert!(!selected(serde_json::json!({})));
    }
}
