//! What was decoded before: an object that stands in the cache as it did is not decoded again.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::snapshot::RawObject;

/// Objects of one kind as they were last decoded, by name.
#[derive(Clone, Debug)]
pub struct Decoded<T>(BTreeMap<String, (Arc<RawObject>, Arc<T>)>);

impl<T> Decoded<T> {
    /// All these objects, decoded. Those that are gone are forgotten.
    pub fn all(
        &mut self,
        objects: &BTreeMap<String, Arc<RawObject>>,
        decode: impl Fn(&RawObject) -> T,
    ) -> BTreeMap<String, Arc<T>> {
        self.0.retain(|name, _| objects.contains_key(name));
        for (name, raw) in objects {
            let is_known = self.0.get(name).is_some_and(|(known, _)| Arc::ptr_eq(known, raw) || known == raw);
            if !is_known {
                self.0.insert(name.clone(), (Arc::clone(raw), Arc::new(decode(raw))));
            }
        }
        self.0.iter().map(|(name, (_, decoded))| (name.clone(), Arc::clone(decoded))).collect()
    }
}

impl<T> Default for Decoded<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_has_changed_is_decoded_again() {
        let decoded_objects = Cell::new(0);
        let mut decoded = Decoded::default();
        let mut look = |generations: &[(&str, i64)]| {
            let object = |(name, generation): &(&str, i64)| {
                let object = json!({ "metadata": { "name": name, "generation": generation } });
                ((*name).to_owned(), Arc::new(RawObject::from_json(&object).expect("it has a name")))
            };
            let seen = decoded.all(&generations.iter().map(object).collect(), |raw| {
                decoded_objects.set(decoded_objects.get() + 1);
                raw.generation
            });
            let seen: Vec<(String, i64)> = seen.into_iter().map(|(name, generation)| (name, *generation)).collect();
            (seen, decoded_objects.take())
        };
        assert_eq!(look(&[("a", 1), ("b", 1)]).1, 2);
        assert_eq!(look(&[("a", 1), ("b", 2)]), (vec![("a".to_owned(), 1), ("b".to_owned(), 2)], 1));
        assert_eq!(look(&[("b", 2)]), (vec![("b".to_owned(), 2)], 0));
        assert_eq!(look(&[("a", 1), ("b", 2)]).1, 1);
    }
}
