//! Cgroup classes: whose processes are containers, whose are trusted host services, what else is said about them, and
//! which one counts when several ancestors are known.

/// Deepest level of the cgroup tree the kernel side looks at; level 0 is the hierarchy's root. The user side refuses to
/// classify a cgroup below it, because such an entry would never be seen; so nothing below it is trusted.
pub const MAX_LEVEL: u32 = 15;

/// What the processes of a cgroup are.
///
/// There is no "unknown": what nobody classified is [`CgroupClass::Guarded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CgroupClass {
    /// Containers, and everything nobody vouched for.
    #[default]
    Guarded,
    /// Trusted host services.
    Host,
}

// === impl CgroupClass ===

impl CgroupClass {
    /// The number this class has in the class map. Part of the ABI; 0 is never written.
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            Self::Guarded => 1,
            Self::Host => 2,
        }
    }

    /// The class of a number read from the class map. A number this version does not know is guarded.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        if raw == Self::Host.to_raw() {
            Self::Host
        } else {
            Self::Guarded
        }
    }
}

/// How the processes of a cgroup are treated: one entry of the class map. The default is what nobody classified gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Treatment {
    /// What they are.
    pub class: CgroupClass,
    /// Whether attempts are only decided and recorded, but nothing is blocked.
    pub observed: bool,
    /// Whether their connections to the credential endpoint are taken to the enforcer even if they are host services.
    pub steered: bool,
    /// Groups of blocked destinations they may use all the same: bit `n` stands for group `n + 1` (see
    /// [`crate::address::AddressRule::group`]).
    pub exceptions: u16,
}

/// How many groups of destinations exceptions can be made for.
pub const MAX_GROUPS: u32 = u16::BITS;

// === impl Treatment ===

impl Treatment {
    const CLASS: u32 = 0xff;
    const OBSERVED: u32 = 1 << 8;
    const STEERED: u32 = 1 << 9;
    const EXCEPTIONS_SHIFT: u32 = 16;

    /// The number this treatment has in the class map. Part of the ABI; 0 is never written.
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        let observed = if self.observed { Self::OBSERVED } else { 0 };
        let steered = if self.steered { Self::STEERED } else { 0 };
        self.class.to_raw() | observed | steered | (self.exceptions as u32) << Self::EXCEPTIONS_SHIFT
    }

    /// The treatment of a number read from the class map.
    #[inline(always)]
    #[must_use]
    pub const fn from_raw(raw: u32) -> Self {
        Self {
            class: CgroupClass::from_raw(raw & Self::CLASS),
            observed: raw & Self::OBSERVED != 0,
            steered: raw & Self::STEERED != 0,
            exceptions: (raw >> Self::EXCEPTIONS_SHIFT) as u16,
        }
    }

    /// The same, but not trusted.
    #[inline(always)]
    #[must_use]
    pub const fn guarded(self) -> Self {
        Self {
            class: CgroupClass::Guarded,
            ..self
        }
    }

    /// Whether connections to the credential endpoint are taken to the enforcer: those of everything guarded are.
    #[inline(always)]
    #[must_use]
    pub const fn is_steered(self) -> bool {
        matches!(self.class, CgroupClass::Guarded) || self.steered
    }

    /// Whether a group of destinations may be used by exception. Group 0 never may.
    #[inline(always)]
    #[must_use]
    pub const fn excepts(self, group: u32) -> bool {
        group != 0 && group <= MAX_GROUPS && self.exceptions & (1 << (group - 1)) != 0
    }
}

/// Classifies a cgroup by its ancestry: the deepest known ancestor wins, and nobody known means guarded. Trust is not
/// inherited: only a cgroup that is known itself is trusted, so that what is made below a trusted one, by a container engine
/// as well, is guarded from birth. What is deeper than can be looked at is not known itself. Gives the number of a
/// [`Treatment`].
///
/// `ancestor_at` gives the cgroup ID at a level (0 where the cgroup is not that deep, or where there is no cgroup at
/// all), `known` the number in the class map. Both sides run this very function: in the kernel the closures are a
/// helper call and a map lookup.
#[inline(always)]
pub fn classify(mut ancestor_at: impl FnMut(u32) -> u64, mut known: impl FnMut(u64) -> Option<u32>) -> u32 {
    let mut treatment = CgroupClass::Guarded.to_raw();
    let mut is_known_itself = false;
    let mut level = 0;
    while level <= MAX_LEVEL {
        let id = ancestor_at(level);
        if id == 0 {
            break;
        }
        let raw = known(id);
        is_known_itself = raw.is_some();
        if let Some(raw) = raw {
            treatment = raw;
        }
        level += 1;
    }
    if is_known_itself && (level <= MAX_LEVEL || ancestor_at(level) == 0) {
        return treatment;
    }
    Treatment::from_raw(treatment).guarded().to_raw()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{collections::HashMap, vec::Vec};

    use proptest::{
        collection::{hash_map, vec},
        prelude::{prop_assert_eq, proptest},
    };

    use super::{CgroupClass, MAX_GROUPS, MAX_LEVEL, Treatment, classify};

    fn class(path: &[u64], known: &HashMap<u64, u32>) -> CgroupClass {
        let raw = classify(
            |level| path.get(level as usize).copied().unwrap_or(0),
            |id| known.get(&id).copied(),
        );
        Treatment::from_raw(raw).class
    }

    const HOST: u32 = CgroupClass::Host.to_raw();
    const GUARDED: u32 = CgroupClass::Guarded.to_raw();

    #[test]
    fn an_unknown_cgroup_is_guarded() {
        assert_eq!(class(&[1, 5, 9], &HashMap::new()), CgroupClass::Guarded);
    }

    #[test]
    fn a_socket_without_a_cgroup_is_guarded() {
        assert_eq!(class(&[], &HashMap::from([(0, HOST)])), CgroupClass::Guarded);
    }

    #[test]
    fn the_deepest_known_ancestor_wins() {
        let known = HashMap::from([(5, HOST), (9, GUARDED)]);
        assert_eq!(class(&[1, 5], &known), CgroupClass::Host);
        assert_eq!(class(&[1, 5, 9], &known), CgroupClass::Guarded);
        assert_eq!(class(&[1, 5, 9, 10, 11], &known), CgroupClass::Guarded);
        let observed = Treatment {
            observed: true,
            ..Treatment::default()
        };
        let known = HashMap::from([(5, observed.to_raw())]);
        let raw = classify(|level| [1, 5, 9, 0][level as usize], |id| known.get(&id).copied());
        assert_eq!(Treatment::from_raw(raw), observed);
    }

    #[test]
    fn what_is_new_below_a_trusted_cgroup_is_guarded() {
        let known = HashMap::from([(5, HOST), (8, HOST)]);
        assert_eq!(class(&[1, 5, 7], &known), CgroupClass::Guarded);
        assert_eq!(class(&[1, 5, 7, 8], &known), CgroupClass::Host);
    }

    #[test]
    fn what_is_too_deep_to_be_looked_at_is_guarded() {
        let path: Vec<u64> = (1..40).collect();
        let known: HashMap<u64, u32> = path.iter().map(|id| (*id, HOST)).collect();
        let (seen, deeper) = (MAX_LEVEL as usize + 1, MAX_LEVEL as usize + 2);
        assert_eq!(class(&path[..seen], &known), CgroupClass::Host);
        assert_eq!(class(&path[..deeper], &known), CgroupClass::Guarded);
    }

    #[test]
    fn a_class_number_from_the_future_is_guarded() {
        assert_eq!(class(&[1, 5], &HashMap::from([(5, 77)])), CgroupClass::Guarded);
    }

    #[test]
    fn an_exception_is_for_its_group_alone() {
        let treatment = Treatment {
            exceptions: 0b101,
            ..Treatment::default()
        };
        let excepted: Vec<u32> = (0..=MAX_GROUPS + 1).filter(|group| treatment.excepts(*group)).collect();
        assert_eq!(excepted, [1, 3]);
    }

    proptest! {
        #[test]
        fn a_treatment_survives_the_way_through_the_class_map(
            host: bool, observed: bool, steered: bool, exceptions: u16,
        ) {
            let class = if host { CgroupClass::Host } else { CgroupClass::Guarded };
            let treatment = Treatment { class, observed, steered, exceptions };
            prop_assert_eq!(Treatment::from_raw(treatment.to_raw()), treatment);
        }

        #[test]
        fn nobody_is_trusted_but_who_is_known_to_be(
            path in vec(1_u64..40, 1..24),
            known in hash_map(1_u64..40, 1_u32..3, 0..20),
        ) {
            let is_seen = path.len() <= MAX_LEVEL as usize + 1;
            let itself = path.last().filter(|_| is_seen).and_then(|id| known.get(id)).copied();
            prop_assert_eq!(class(&path, &known), itself.map_or(CgroupClass::Guarded, CgroupClass::from_raw));
        }
    }
}
