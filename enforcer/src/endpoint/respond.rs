//! Answers, literally as the ECS agent gives them: this is the one place that knows how they are written.

use bytes::Bytes;
use http::{
    HeaderValue, Method, StatusCode,
    header::{CONTENT_TYPE, LOCATION, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;

use crate::policy::ApiVersion;

/// An answer; its body is never streamed.
pub(super) type Response = http::Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Why there are no credentials for an ID.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unknown {
    /// Nobody has the ID, or so the caller is told.
    Id,
    /// It is the caller's, but its credentials are not there yet (or not any more). Clients try again.
    Yet,
}

/// `200`: the credentials.
pub(super) fn credentials(body: Bytes) -> Response {
    response(StatusCode::OK, JSON, body)
}

/// `400` or `503`: no credentials for this ID.
pub(super) fn unknown(version: ApiVersion, why: Unknown) -> Response {
    let (status, body) = match (why, version) {
        (Unknown::Id, ApiVersion::V1) => (
            StatusCode::BAD_REQUEST,
            r#"{"code":"InvalidIdInRequest","message":"CredentialsV1Request: Credentials not found","HTTPErrorCode":400}"#,
        ),
        (Unknown::Id, ApiVersion::V2) => (
            StatusCode::BAD_REQUEST,
            r#"{"code":"InvalidIdInRequest","message":"CredentialsV2Request: Credentials not found","HTTPErrorCode":400}"#,
        ),
        (Unknown::Yet, ApiVersion::V1) => (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"code":"CredentialsUninitialized","message":"CredentialsV1Request: Credentials uninitialized for ID","HTTPErrorCode":503}"#,
        ),
        (Unknown::Yet, ApiVersion::V2) => (
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"code":"CredentialsUninitialized","message":"CredentialsV2Request: Credentials uninitialized for ID","HTTPErrorCode":503}"#,
        ),
    };
    json(status, body)
}

/// `400`: no ID at all.
pub(super) fn no_id(version: ApiVersion) -> Response {
    let body = match version {
        ApiVersion::V1 => {
            r#"{"code":"NoIdInRequest","message":"CredentialsV1Request: No Credential ID in the request","HTTPErrorCode":400}"#
        }
        ApiVersion::V2 => {
            r#"{"code":"NoIdInRequest","message":"CredentialsV2Request: No Credential ID in the request","HTTPErrorCode":400}"#
        }
    };
    json(StatusCode::BAD_REQUEST, body)
}

/// `500`: the upstream failed.
pub(super) fn internal_error() -> Response {
    json(
        StatusCode::INTERNAL_SERVER_ERROR,
        r#"{"code":"InternalServerError","message":"Internal server error","HTTPErrorCode":500}"#,
    )
}

/// `400`: a target that does not decode.
pub(super) fn bad_request() -> Response {
    response(StatusCode::BAD_REQUEST, TEXT, Bytes::from_static(b"400 Bad Request"))
}

/// `404`: not a path of the endpoint.
pub(super) fn not_found() -> Response {
    let body = Bytes::from_static(b"404 page not found\n");
    let mut response = response(StatusCode::NOT_FOUND, TEXT, body);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// `405`: not by this method. The agent sends no `Allow` either.
pub(super) fn method_not_allowed() -> Response {
    empty(StatusCode::METHOD_NOT_ALLOWED)
}

/// `301`: the clean form of the path. One that fits into no header is not a path of the endpoint.
pub(super) fn moved(location: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(location) else {
        return not_found();
    };
    let mut response = empty(StatusCode::MOVED_PERMANENTLY);
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The name of a standard method.
pub(super) fn method_name(method: &Method) -> Option<&'static str> {
    const NAMES: [&str; 9] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
    ];
    NAMES.into_iter().find(|name| method == name)
}

fn json(status: StatusCode, body: &'static str) -> Response {
    response(status, JSON, Bytes::from_static(body.as_bytes()))
}

fn response(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
