//! The objects of a watch, as they are now.

use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::BTreeMap;

/// Objects by name, as a watch tells of them.
pub(super) struct Mirror<K> {
    pub(super) objects: BTreeMap<String, K>,
    listed: BTreeMap<String, K>,
    pub(super) complete: bool,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), listed: BTreeMap::new(), complete: false }
    }
}

impl<K: ResourceExt> Mirror<K> {
    pub(super) fn take(&mut self, event: Option<Event<K>>) {
        match event {
            Some(Event::Apply(object)) => {
                self.objects.insert(object.name_any(), object);
            }
            Some(Event::Delete(object)) => {
                self.objects.remove(&object.name_any());
            }
            Some(Event::Init) => self.listed.clear(),
            Some(Event::InitApply(object)) => {
                self.listed.insert(object.name_any(), object);
            }
            Some(Event::InitDone) => {
                self.objects = std::mem::take(&mut self.listed);
                self.complete = true;
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::api::DynamicObject;
    use serde_json::{Value, json};

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_watch_that_starts_over_replaces_what_was_known() {
        let named = |name: &str| object(json!({"metadata": {"name": name}}));
        let mut mirror = Mirror::default();
        for event in [Event::Init, Event::InitApply(named("a")), Event::InitDone, Event::Apply(named("b")), Event::Init] {
            mirror.take(Some(event));
        }
        assert_eq!(mirror.objects.keys().collect::<Vec<_>>(), ["a", "b"]);
        mirror.take(Some(Event::InitApply(named("c"))));
        mirror.take(Some(Event::InitDone));
        assert_eq!(mirror.objects.keys().collect::<Vec<_>>(), ["c"]);
    }
}
