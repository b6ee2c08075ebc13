//! The way from a destination to its rule.

use enforcer_common::{
    address::{Address, AddressRule, Prefix, Spelling},
    settings::Settings,
};

use crate::maps::{ADDRESSES, PREFIXES, SETTINGS};

/// A protected destination.
pub(crate) struct Protected<'a> {
    pub(crate) rule: &'a AddressRule,
    pub(crate) spelling: Spelling,
}

/// The rule of a destination, `None` if it is not protected. This is all that unrelated traffic pays for.
#[inline(always)]
pub(crate) fn protected(destination: &Address) -> Option<Protected<'static>> {
    let (canonical, spelling) = destination.canonical();
    let prefix = Prefix::of(&canonical);
    // The word always exists; were it missing, the address table itself would be asked.
    if PREFIXES.get(prefix.word).is_some_and(|bits| bits & prefix.bit == 0) {
        return None;
    }
    // SAFETY: the reference lives as long as the program runs; the controller replaces rules, it never removes one that
    // is in use, and a rule read half old, half new can only be one of two refusals.
    let rule = unsafe { ADDRESSES.get(canonical) }?;
    Some(Protected { rule, spelling })
}

/// The controller's settings. An array entry always exists; `None` only satisfies the verifier.
#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}
