//! What is asked for, in canonical form.

use std::{fmt, sync::Arc};

/// One request for credentials, whatever way it was written.
#[derive(Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// Which form of the API was used; the answer's text depends on it, the decision does not.
    pub version: ApiVersion,
    /// The credentials asked for.
    pub wanted: Wanted,
}

/// Whose credentials are asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The caller's own, whatever their ID: `/v2/credentials/self`.
    Own,
    /// Those of this ID.
    Id(CredentialId),
}

/// The two forms of the credential API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiVersion {
    /// `/v1/credentials?id=<id>`
    V1,
    /// `/v2/credentials/<id>`
    V2,
}

/// A credential ID. It is a bearer secret: there is no way to print one by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(Arc<str>);

/// A credential ID in the configuration that cannot be one. Does not hold it, because it may be a mistyped secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a credential ID must be 1 to 128 characters out of A-Z, a-z, 0-9, '-', '_' and '.', not just dots, and not `self`"
)]
pub struct InvalidCredentialId;

// === impl Wanted ===

impl Wanted {
    /// The ID, if one was named.
    #[must_use]
    pub fn into_id(self) -> Option<CredentialId> {
        match self {
            Self::Own => None,
            Self::Id(credential) => Some(credential),
        }
    }
}

// === impl CredentialId ===

impl CredentialId {
    /// What stands for the caller's own ID in a request, and is none.
    pub const OWN: &str = "self";

    /// An ID that may be granted: it fits into a URL path as it is.
    pub fn granted(text: &str) -> Result<Self, InvalidCredentialId> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let dots_only = text.bytes().all(|byte| byte == b'.');
        if text.len() > 128 || text == Self::OWN || dots_only || !text.bytes().all(plain) {
            return Err(InvalidCredentialId);
        }
        Ok(Self(text.into()))
    }

    /// An ID as a caller wrote it; any text.
    #[must_use]
    pub fn requested(text: &str) -> Self {
        Self(text.into())
    }

    /// The secret itself, for hashing it and for asking an upstream.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for CredentialId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CredentialId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::CredentialId;

    #[test]
    fn an_id_that_would_change_a_path_cannot_be_granted() {
        for text in [
            "",
            ".",
            "..",
            "self",
            "a/b",
            "a?b",
            "a b",
            "a%41",
            "é",
            &"a".repeat(129),
        ] {
            assert!(CredentialId::granted(text).is_err(), "{text}");
        }
        assert!(CredentialId::granted("d8f91d60-f0c6-4160-b32b-3f61089b625a").is_ok());
    }

    #[test]
    fn debug_output_hides_the_id() {
        assert_eq!(format!("{:?}", CredentialId::requested("secret")), "CredentialId(…)");
    }
}
