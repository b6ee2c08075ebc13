//! The real enforcer with real container engines, which it learns tasks from. On this machine's kernel only, because the
//! virtual machines hold no programs but ours.

#![cfg(test)]

/// The directory beside this file.
mod engines {
    mod docker;
}
