//! What the parser makes of every way to ask.

use http::{Method, Uri};
use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{Parsed, clean, parse};
use crate::policy::{AccessRequest, ApiVersion, CredentialId, Wanted};

fn get(target: &str) -> Parsed {
    parse(&Method::GET, &target.parse::<Uri>().unwrap())
}

fn access(version: ApiVersion, id: &str) -> Parsed {
    Parsed::Access(AccessRequest {
        version,
        wanted: Wanted::Id(CredentialId::requested(id)),
    })
}

#[test]
fn both_forms_name_an_id() {
    for (target, version, id) in [
        ("/v2/credentials/a-b", ApiVersion::V2, "a-b"),
        ("/v2/credentials/a-b?id=other", ApiVersion::V2, "a-b"),
        ("/v2/credentials/%61%2Db", ApiVersion::V2, "a-b"),
        ("/v2/%63redentials/a-b", ApiVersion::V2, "a-b"),
        ("/v2/credentials/a/b/", ApiVersion::V2, "a/b/"),
        ("/v2/credentials/a%2fb", ApiVersion::V2, "a/b"),
        ("/v2/credentials/a%2525", ApiVersion::V2, "a%25"),
        ("/v1/credentials?id=a-b", ApiVersion::V1, "a-b"),
        ("/v1/credentials?x=1&id=first&id=second", ApiVersion::V1, "first"),
        ("/v1/credentials?%69d=a%2Db", ApiVersion::V1, "a-b"),
        ("http://anything/v2/credentials/a-b", ApiVersion::V2, "a-b"),
    ] {
        assert_eq!(get(target), access(version, id), "{target}");
    }
}

#[test]
fn a_request_without_an_id_says_so() {
    assert_eq!(get("/v2/credentials/"), Parsed::NoId(ApiVersion::V2));
    for target in [
        "/v1/credentials",
        "/v1/credentials?id=",
        "/v1/credentials?id=&id=x",
        "/v1/credentials?ID=x",
    ] {
        assert_eq!(get(target), Parsed::NoId(ApiVersion::V1), "{target}");
    }
}

#[test]
fn other_paths_are_elsewhere() {
    for target in [
        "/",
        "/v2/credentials",
        "/v1/credentials/",
        "/v1/credentials/x",
        "/v3/credentials/x",
        "/V2/credentials/x",
        "*",
    ] {
        assert!(
            matches!(get(target), Parsed::Elsewhere | Parsed::Unclean(_)),
            "{target}"
        );
    }
    assert_eq!(get("/v2/credentials"), Parsed::Elsewhere);
}

#[test]
fn an_unclean_path_leads_to_its_clean_form_with_the_query_kept() {
    for (target, location) in [
        ("//v2/credentials/x", "/v2/credentials/x"),
        ("/v2//credentials/x?a=b&c", "/v2/credentials/x?a=b&c"),
        ("/v2/credentials/../credentials/x", "/v2/credentials/x"),
        ("/v2/./credentials/", "/v2/credentials/"),
        ("/%2e%2e/v2/credentials/x%20y", "/v2/credentials/x%20y"),
        ("/v2/credentials%2f/x", "/v2/credentials/x"),
        ("/v2/credentials/x/..", "/v2/credentials"),
    ] {
        assert_eq!(get(target), Parsed::Unclean(location.to_owned()), "{target}");
    }
}

#[test]
fn only_get_and_head_ask_for_credentials() {
    let target: Uri = "/v2/credentials/x".parse().unwrap();
    assert_eq!(parse(&Method::HEAD, &target), access(ApiVersion::V2, "x"));
    for method in [
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::from_bytes(b"FOO").unwrap(),
    ] {
        assert_eq!(parse(&method, &target), Parsed::Method(ApiVersion::V2), "{method}");
    }
}

#[test]
fn a_broken_escape_is_refused() {
    for target in [
        "/v2/credentials/%",
        "/v2/credentials/%4",
        "/v2/credentials/%zz",
        "/v2/credentials/%ff",
    ] {
        assert_eq!(get(target), Parsed::Undecodable, "{target}");
    }
}

proptest! {
    #[test]
    fn cleaning_twice_changes_nothing(path in "/[a./]{0,16}") {
        let cleaned = clean(&path);
        prop_assert_eq!(clean(&cleaned), cleaned);
    }

    #[test]
    fn any_encoding_of_an_id_names_the_same_one(id in "[a-z0-9-]{1,40}", encoded in any::<u64>()) {
        let target: String = id.bytes().enumerate().fold("/v2/credentials/".to_owned(), |target, (index, byte)| {
            if encoded >> (index % 64) & 1 == 1 { format!("{target}%{byte:02x}") } else { format!("{target}{}", byte as char) }
        });
        prop_assert_eq!(get(&target), access(ApiVersion::V2, &id));
    }

    #[test]
    fn whatever_is_asked_the_audit_path_holds_no_part_of_it(target in "/[v12/credentials%.?=0-9a-f]{0,60}") {
        if let Ok(uri) = target.parse::<Uri>() {
            let path = parse(&Method::GET, &uri).audit_path();
            prop_assert!(matches!(path, None | Some("/v1/credentials" | "/v2/credentials")));
        }
    }
}
