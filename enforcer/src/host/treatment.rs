//! How the processes of a cgroup are to be treated, by its path. Pure: what the class map says of the cgroups that exist
//! and what the endpoint thinks of a sender are answers of one function.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use enforcer_common::cgroup::{CgroupClass, MAX_LEVEL, Treatment};

use super::containers::is_like_a_containers;
use crate::config::CgroupPattern;

/// What is said about cgroups.
///
/// Each says something about itself and everything below it; what it leaves out holds as it does above it. Trust alone ends
/// at what looks like a container's cgroup: engines let who makes a container choose where its cgroup is, also in that of a
/// trusted service. A container is trusted only if something is said about its very cgroup.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    exact: HashMap<PathBuf, Says>,
    patterns: Vec<(CgroupPattern, Says)>,
    consumers: Vec<(CgroupPattern, Arc<Consumer>)>,
}

/// A trusted host service that may ask for credentials which are not its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Consumer {
    /// What it is called.
    pub name: Box<str>,
    /// Whether it gets those of execution roles.
    pub execution: bool,
    /// Whether it gets those of tasks.
    pub task: bool,
}

/// What is said about one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Says {
    /// What its processes are.
    pub class: Option<CgroupClass>,
    /// Whether their attempts are recorded only.
    pub observed: Option<bool>,
    /// The groups of blocked destinations they may use, as in [`Treatment::exceptions`].
    pub exceptions: Option<u16>,
    /// Whether they are steered like containers, as in [`Treatment::steered`].
    pub steered: Option<bool>,
}

// === impl Rules ===

impl Rules {
    /// Says something about the cgroups of a pattern, besides what is said about them already.
    pub fn add(&mut self, pattern: &CgroupPattern, says: Says) {
        if let Some(path) = pattern.literal() {
            let known = self.exact.entry(path.to_owned()).or_default();
            *known = known.and(says);
        } else {
            self.patterns.push((pattern.clone(), says));
        }
    }

    /// Says that the cgroups of a pattern are a consumer's, if they are trusted.
    pub fn add_consumer(&mut self, pattern: &CgroupPattern, consumer: Arc<Consumer>) {
        let steered = Says {
            steered: Some(true),
            ..Says::default()
        };
        self.add(pattern, steered);
        self.consumers.push((pattern.clone(), consumer));
    }

    /// Whose a cgroup is, if it is a consumer's. What is guarded never is, wherever it is.
    #[must_use]
    pub fn consumer(&self, path: &Path) -> Option<&Arc<Consumer>> {
        if self.treatment(path).class != CgroupClass::Host {
            return None;
        }
        path.ancestors().find_map(|path| {
            let mut consumers = self.consumers.iter();
            consumers.find_map(|(pattern, consumer)| pattern.matches(path).then_some(consumer))
        })
    }

    /// The same without any exception but these.
    #[must_use]
    pub fn with_exceptions_among(mut self, groups: u16) -> Self {
        let all = self
            .exact
            .values_mut()
            .chain(self.patterns.iter_mut().map(|(_, says)| says));
        for says in all {
            says.exceptions = says.exceptions.map(|exceptions| exceptions & groups);
        }
        self
    }

    /// How the processes of a cgroup (path relative to the mount, with a leading slash) are treated.
    #[must_use]
    pub fn treatment(&self, path: &Path) -> Treatment {
        let ancestors: Vec<_> = path.ancestors().collect();
        let is_too_deep = ancestors.len() > MAX_LEVEL as usize + 1;
        let seen = ancestors.into_iter().rev().take(MAX_LEVEL as usize + 1);
        let treatment = seen.fold(Treatment::default(), |above, path| {
            let says = self.about(path);
            let is_container = path.file_name().is_some_and(is_like_a_containers);
            let class = says.class.or_else(|| is_container.then_some(CgroupClass::Guarded));
            Says { class, ..says }.over(above)
        });
        if is_too_deep { treatment.guarded() } else { treatment }
    }

    /// The outermost cgroup, of this one and those above it, that is trusted or looks like a container's: below it others
    /// than the host's root may make cgroups.
    #[must_use]
    pub fn outermost<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let others_may = |path: &&Path| {
            path.file_name().is_some_and(is_like_a_containers) || self.about(path).class == Some(CgroupClass::Host)
        };
        path.ancestors().filter(others_may).last()
    }

    /// Paths that are said something about.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.exact.keys().map(PathBuf::as_path)
    }

    /// Patterns of paths that are said something about.
    pub fn patterns(&self) -> impl Iterator<Item = &CgroupPattern> {
        self.patterns.iter().map(|(pattern, _)| pattern)
    }

    /// What is said about this very cgroup. An exact path is the last to say it.
    fn about(&self, path: &Path) -> Says {
        let matching = self.patterns.iter().filter(|(pattern, _)| pattern.matches(path));
        let said = matching.fold(Says::default(), |said, (_, says)| said.and(*says));
        self.exact.get(path).map_or(said, |says| said.and(*says))
    }
}

// === impl Says ===

impl Says {
    /// Both together: guarded wins over host, a later word on observing over an earlier one, and exceptions add up.
    fn and(self, later: Self) -> Self {
        let guarded = [self.class, later.class].contains(&Some(CgroupClass::Guarded));
        Self {
            class: if guarded {
                Some(CgroupClass::Guarded)
            } else {
                self.class.or(later.class)
            },
            observed: later.observed.or(self.observed),
            exceptions: match (self.exceptions, later.exceptions) {
                (Some(earlier), Some(later)) => Some(earlier | later),
                (earlier, later) => earlier.or(later),
            },
            steered: later.steered.or(self.steered),
        }
    }

    fn over(self, above: Treatment) -> Treatment {
        Treatment {
            class: self.class.unwrap_or(above.class),
            observed: self.observed.unwrap_or(above.observed),
            exceptions: self.exceptions.unwrap_or(above.exceptions),
            steered: self.steered.unwrap_or(above.steered),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use enforcer_common::cgroup::{CgroupClass, MAX_LEVEL, Treatment};

    use super::{Consumer, Rules, Says};
    use crate::config::CgroupPattern;

    const GUARDED: Says = Says {
        class: Some(CgroupClass::Guarded),
        observed: None,
        exceptions: None,
        steered: None,
    };
    const HOST: Says = Says {
        class: Some(CgroupClass::Host),
        ..GUARDED
    };
    const NOTHING: Says = Says { class: None, ..GUARDED };

    fn rules(says: &[(&str, Says)]) -> Rules {
        let mut rules = Rules::default();
        for (pattern, says) in says {
            rules.add(&CgroupPattern::parse(pattern.into()).unwrap(), *says);
        }
        rules
    }

    fn treatment(rules: &Rules, path: &str) -> (CgroupClass, bool, u16) {
        let Treatment {
            class,
            observed,
            exceptions,
            ..
        } = rules.treatment(Path::new(path));
        (class, observed, exceptions)
    }

    #[test]
    fn what_is_not_said_holds_as_above() {
        let observed = Says {
            observed: Some(true),
            ..NOTHING
        };
        let rules = rules(&[
            ("/system.slice/*", HOST),
            ("/docker", observed),
            (
                "/docker/x",
                Says {
                    exceptions: Some(0b10),
                    ..NOTHING
                },
            ),
            (
                "/docker/x/strict",
                Says {
                    observed: Some(false),
                    ..GUARDED
                },
            ),
        ]);
        assert_eq!(
            treatment(&rules, "/system.slice/ssh.service/x"),
            (CgroupClass::Host, false, 0)
        );
        assert_eq!(treatment(&rules, "/system.slice"), (CgroupClass::Guarded, false, 0));
        assert_eq!(treatment(&rules, "/docker/y"), (CgroupClass::Guarded, true, 0));
        assert_eq!(treatment(&rules, "/docker/x/y"), (CgroupClass::Guarded, true, 0b10));
        assert_eq!(
            treatment(&rules, "/docker/x/strict"),
            (CgroupClass::Guarded, false, 0b10)
        );
    }

    #[test]
    fn an_exception_deeper_down_replaces_those_above_and_adds_to_those_beside_it() {
        let except = |groups| Says {
            exceptions: Some(groups),
            ..NOTHING
        };
        let rules = rules(&[("/a", except(0b001)), ("/a/b", except(0b010)), ("/a/*", except(0b100))]);
        assert_eq!(treatment(&rules, "/a").2, 0b001);
        assert_eq!(treatment(&rules, "/a/b/c").2, 0b110);
        assert_eq!(treatment(&rules.with_exceptions_among(0b011), "/a/b").2, 0b010);
    }

    #[test]
    fn what_is_both_is_guarded_in_any_order() {
        for order in [[HOST, GUARDED], [GUARDED, HOST]] {
            let rules = rules(&[("/a/b", order[0]), ("/a/b", order[1])]);
            assert_eq!(treatment(&rules, "/a/b").0, CgroupClass::Guarded);
        }
    }

    #[test]
    fn a_consumer_is_steered_and_a_container_below_it_is_none() {
        let mut rules = rules(&[("/system.slice/*.service", HOST), ("/system.slice/*/docker-*", GUARDED)]);
        let docker = Arc::new(Consumer {
            name: "docker".into(),
            execution: true,
            task: false,
        });
        let pattern = CgroupPattern::parse("/system.slice/docker.service".into()).unwrap();
        rules.add_consumer(&pattern, Arc::clone(&docker));
        let elsewhere = CgroupPattern::parse("/docker/agent".into()).unwrap();
        rules.add_consumer(&elsewhere, Arc::clone(&docker));
        for (path, consumer, is_steered) in [
            ("/system.slice/docker.service", Some(&docker), true),
            ("/system.slice/docker.service/child", Some(&docker), true),
            ("/system.slice/docker.service/docker-1.scope", None, true),
            ("/system.slice/ssh.service", None, false),
            // It is not trusted, so it is steered like everything guarded, and nobody.
            ("/docker/agent", None, true),
        ] {
            let path = Path::new(path);
            assert_eq!(rules.consumer(path), consumer, "{}", path.display());
            assert_eq!(rules.treatment(path).is_steered(), is_steered, "{}", path.display());
        }
    }

    #[test]
    fn trust_ends_at_a_container_wherever_its_maker_puts_it() {
        let id = "0123456789abcdef".repeat(4);
        let agent = format!("/system.slice/docker.service/{}", id.replace('0', "1"));
        let rules = rules(&[("/system.slice/*.service", HOST), ("/user.slice", HOST), (&agent, HOST)]);
        for (path, class) in [
            ("/system.slice/docker.service/init", CgroupClass::Host),
            ("/system.slice/ssh.service/ID", CgroupClass::Guarded),
            (
                "/system.slice/ssh.service/deep/down/docker-ID.scope/init",
                CgroupClass::Guarded,
            ),
            ("/user.slice/docker-ID.scope", CgroupClass::Guarded),
            (
                "/user.slice/user-1.slice/user@1.service/app.slice/x.service/libpod-payload-ID",
                CgroupClass::Guarded,
            ),
            (
                "/user.slice/user-1.slice/user@1.service/app.slice/x.service",
                CgroupClass::Host,
            ),
            // One that is named is trusted.
            (&agent, CgroupClass::Host),
        ] {
            assert_eq!(treatment(&rules, &path.replace("ID", &id)).0, class, "{path}");
        }
    }

    #[test]
    fn others_may_make_cgroups_below_the_first_that_is_trusted_or_a_containers() {
        let id = "0123456789abcdef".repeat(4);
        let rules = rules(&[("/user.slice/*/user@*.service", HOST), ("/user.slice/*/*/*/x", HOST)]);
        for (path, outermost) in [
            ("/", None),
            ("/user.slice/user-1.slice", None),
            (
                "/user.slice/user-1.slice/user@1.service",
                Some("/user.slice/user-1.slice/user@1.service"),
            ),
            (
                "/user.slice/user-1.slice/user@1.service/app.slice/x/libpod-ID",
                Some("/user.slice/user-1.slice/user@1.service"),
            ),
            ("/docker/ID/x", Some("/docker/ID")),
        ] {
            let (path, outermost) = (path.replace("ID", &id), outermost.map(|path| path.replace("ID", &id)));
            assert_eq!(
                rules.outermost(Path::new(&path)),
                outermost.as_deref().map(Path::new),
                "{path}"
            );
        }
    }

    #[test]
    fn what_the_kernel_cannot_see_is_not_said_here_either() {
        let deepest = "/x".repeat(MAX_LEVEL as usize);
        let deeper = format!("{deepest}/x");
        assert_eq!(treatment(&rules(&[(&deeper, HOST)]), &deeper).0, CgroupClass::Guarded);
        let rules = rules(&[("/x", HOST)]);
        assert_eq!(treatment(&rules, &deepest).0, CgroupClass::Host);
        assert_eq!(treatment(&rules, &deeper).0, CgroupClass::Guarded);
    }
}
