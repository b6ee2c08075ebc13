//! Cgroups that are remembered: telling where one is takes the kernel longer than anything else about a connection.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::Located;

/// How many cgroups are remembered, and how many bytes of their paths. When there are more, remembering starts over.
pub(super) const CACHED_CGROUPS: usize = 65_536;
pub(super) const CACHED_BYTES: usize = 8 << 20;

/// Cgroups that are remembered, by their IDs.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    known: HashMap<u64, Known>,
    /// Of their paths.
    bytes: usize,
}

/// A cgroup that is remembered.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) located: Arc<Located>,
    /// Its path, if that is not UTF-8.
    pub(super) odd_path: Option<Arc<Path>>,
    /// How many changes the registry had seen when this was looked up; none if it is to be looked up again.
    pub(super) changes: Option<u64>,
    /// All sources were asked whether it is a container's of its own.
    pub(super) is_settled: bool,
}

// === impl Cache ===

impl Cache {
    pub(super) fn get(&self, cgroup_id: u64) -> Option<Known> {
        self.known.get(&cgroup_id).cloned()
    }

    pub(super) fn remember(&mut self, cgroup_id: u64, known: Known) {
        let bytes = known.located.path.len();
        match self.known.get_mut(&cgroup_id) {
            // Settled meanwhile.
            Some(earlier) if earlier.is_settled && !known.is_settled => return,
            Some(earlier) => return *earlier = known,
            None => {}
        }
        if self.known.len() >= CACHED_CGROUPS || self.bytes + bytes > CACHED_BYTES {
            *self = Self::default();
        }
        self.bytes += bytes;
        self.known.insert(cgroup_id, known);
    }

    /// All sources were asked about a cgroup.
    pub(super) fn settle(&mut self, cgroup_id: u64) {
        if let Some(known) = self.known.get_mut(&cgroup_id) {
            known.is_settled = true;
            known.changes = None;
        }
    }

    /// The same cgroups, with other things known of them.
    pub(super) fn map(mut self, with: impl Fn(Known) -> Known) -> Self {
        self.known = self.known.into_iter().map(|(id, known)| (id, with(known))).collect();
        self
    }
}

// === impl Known ===

impl Known {
    pub(super) fn path(&self) -> &Path {
        self.odd_path.as_deref().unwrap_or(Path::new(&*self.located.path))
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::{CACHED_BYTES, CACHED_CGROUPS, Cache, Known};
    use crate::attribution::Located;

    #[test]
    fn a_container_with_many_cgroups_does_not_fill_the_memory() {
        let mut cache = Cache::default();
        let last = u64::try_from(CACHED_CGROUPS).unwrap() - 1;
        for id in 1..=last {
            let located = Arc::new(Located {
                path: format!("{id:0255}").into(),
                owner: None,
                consumer: None,
                observed: false,
            });
            let known = Known {
                located,
                odd_path: None,
                changes: None,
                is_settled: false,
            };
            assert_eq!(known.path(), Path::new(&*known.located.path));
            cache.remember(id, known);
        }
        let bytes: usize = cache.known.values().map(|known| known.located.path.len()).sum();
        assert_eq!(bytes, cache.bytes);
        assert!(bytes <= CACHED_BYTES && cache.get(last).is_some(), "{bytes}");
    }
}
