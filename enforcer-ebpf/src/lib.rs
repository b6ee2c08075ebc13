//! Empty on purpose: it gives the build graph a library to depend on, so that `enforcer` is rebuilt when the hooks change.
#![no_std]
