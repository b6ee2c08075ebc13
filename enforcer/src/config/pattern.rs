//! Patterns of cgroup paths.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use glob::{Pattern, PatternError};

/// A cgroup path relative to the cgroup2 mount, with a leading slash. `*` stands for any run of characters within a
/// component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPattern {
    written: PathBuf,
    components: Vec<Pattern>,
    is_literal: bool,
}

// === impl CgroupPattern ===

impl CgroupPattern {
    /// The pattern of this text.
    pub fn parse(written: PathBuf) -> Result<Self, PatternError> {
        let components = names(&written).map(|name| Pattern::new(&name));
        Ok(Self {
            components: components.collect::<Result<_, _>>()?,
            is_literal: !written.to_string_lossy().contains(['*', '?', '[', ']']),
            written,
        })
    }

    /// The pattern that only this path matches, whatever is in it.
    #[must_use]
    pub fn exactly(path: &Path) -> Self {
        let escaped = names(path).map(|name| Pattern::escape(&name));
        Self {
            components: escaped.filter_map(|name| Pattern::new(&name).ok()).collect(),
            is_literal: true,
            written: path.to_owned(),
        }
    }

    /// The one path that matches, if there is only one.
    #[must_use]
    pub fn literal(&self) -> Option<&Path> {
        self.is_literal.then_some(&*self.written)
    }

    /// Its components, from the root's children down.
    #[must_use]
    pub fn components(&self) -> &[Pattern] {
        &self.components
    }

    /// Whether it is about this very cgroup.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        let mut names = names(path);
        let all = self
            .components
            .iter()
            .all(|component| names.next().is_some_and(|name| component.matches(&name)));
        all && names.next().is_none()
    }
}

impl fmt::Display for CgroupPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.written.display().fmt(formatter)
    }
}

fn names(path: &Path) -> impl Iterator<Item = std::borrow::Cow<'_, str>> {
    path.components().filter_map(|component| {
        if let Component::Normal(name) = component {
            Some(name.to_string_lossy())
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::CgroupPattern;

    #[test]
    fn a_star_stays_within_its_component() {
        let pattern = CgroupPattern::parse("/system.slice/docker-*".into()).unwrap();
        for (path, matches) in [
            ("/system.slice/docker-1.scope", true),
            ("/system.slice/docker-1.scope/child", false),
            ("/system.slice/x/docker-1.scope", false),
            ("/system.slice", false),
            ("/", false),
        ] {
            assert_eq!(pattern.matches(Path::new(path)), matches, "{path}");
        }
        assert!(CgroupPattern::parse("/".into()).unwrap().matches(Path::new("/")));
    }

    #[test]
    fn a_path_taken_exactly_matches_only_itself() {
        let pattern = CgroupPattern::exactly(Path::new("/a/[b]*"));
        assert!(pattern.matches(Path::new("/a/[b]*")) && !pattern.matches(Path::new("/a/bc")));
        assert_eq!(pattern.literal(), Some(Path::new("/a/[b]*")));
    }
}
