//! The one parser: from method and target to what is asked for.
//!
//! As the ECS agent does it: the path is percent-decoded, then cleaned (a path that is not clean is answered with a
//! redirect), then matched. In v1 the first `id` counts, in v2 the query does not.

use std::borrow::Cow;

use http::{Method, Uri};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::policy::{AccessRequest, ApiVersion, CredentialId, DenialReason, Wanted};

/// The v1 path; the ID is in its query.
const V1: &str = "/v1/credentials";

/// What a v2 path begins with; the rest is the ID.
const V2: &str = "/v2/credentials/";

/// What must be encoded in the path of a redirect.
const NOT_IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Credentials.
    Access(AccessRequest),
    /// Credentials, without saying which.
    NoId(ApiVersion),
    /// Credentials, by a method that gets none.
    Method(ApiVersion),
    /// A path that is not in its clean form; the client should go to this one.
    Unclean(String),
    /// A path that does not decode to text.
    Undecodable,
    /// Something else.
    Elsewhere,
}

// === impl Parsed ===

impl Parsed {
    /// Why it gets nothing, if it is not a request for certain credentials.
    pub(super) const fn problem(&self) -> DenialReason {
        match self {
            Self::Access(_) | Self::NoId(_) | Self::Method(_) | Self::Undecodable => DenialReason::Malformed,
            Self::Unclean(_) | Self::Elsewhere => DenialReason::NotCredentials,
        }
    }
}

/// Parses a request. Total: everything is something.
pub(super) fn parse(method: &Method, uri: &Uri) -> Parsed {
    let Some(path) = decode(uri.path()) else {
        return Parsed::Undecodable;
    };
    let cleaned = clean(&path);
    if cleaned != path {
        return Parsed::Unclean(location(&cleaned, uri.query()));
    }
    let (version, id) = if path == V1 {
        (ApiVersion::V1, first_id(uri.query().unwrap_or_default()))
    } else if let Some(id) = path.strip_prefix(V2) {
        (ApiVersion::V2, Cow::Borrowed(id))
    } else {
        return Parsed::Elsewhere;
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Parsed::Method(version);
    }
    if id.is_empty() {
        return Parsed::NoId(version);
    }
    let wanted = if id == CredentialId::OWN {
        Wanted::Own
    } else {
        Wanted::Id(CredentialId::requested(&id))
    };
    Parsed::Access(AccessRequest { version, wanted })
}

// === impl Parsed ===

impl Parsed {
    /// The path as the audit trail may have it: without an ID. Other paths may hold anything, so they have none.
    pub(super) const fn audit_path(&self) -> Option<&'static str> {
        let version = match self {
            Self::Access(access) => access.version,
            Self::NoId(version) | Self::Method(version) => *version,
            Self::Unclean(_) | Self::Undecodable | Self::Elsewhere => return None,
        };
        Some(match version {
            ApiVersion::V1 => V1,
            ApiVersion::V2 => "/v2/credentials",
        })
    }
}

/// Percent-decodes a path. None if a `%` is not followed by two hexadecimal digits, or if the result is not UTF-8.
fn decode(path: &str) -> Option<Cow<'_, str>> {
    let escapes = path.split('%').skip(1);
    let valid = |escape: &str| {
        escape
            .as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !escapes.into_iter().all(valid) {
        return None;
    }
    percent_decode_str(path).decode_utf8().ok()
}

/// The clean form of a path: one leading slash, no empty, `.` or `..` component; a final slash stays.
fn clean(path: &str) -> String {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    let mut cleaned = format!("/{}", components.join("/"));
    if path.ends_with('/') && cleaned != "/" {
        cleaned.push('/');
    }
    cleaned
}

fn location(path: &str, query: Option<&str>) -> String {
    let mut location = utf8_percent_encode(path, NOT_IN_PATH).to_string();
    if let Some(query) = query {
        location.push('?');
        location.push_str(query);
    }
    location
}

fn first_id(query: &str) -> Cow<'_, str> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(key, _)| key == "id")
        .map_or(Cow::Borrowed(""), |(_, id)| id)
}

#[cfg(test)]
mod tests;
