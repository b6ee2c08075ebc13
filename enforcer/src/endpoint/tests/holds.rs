//! What holds at the moment of a request decides it.

use std::sync::Arc;

use enforcer_common::handshake::state;
use http::{Method, StatusCode, Uri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, pause, resume},
};

use super::{BATCH, BOUND, Everybody, STRANGER, Served, WEB, WEB_BODY, announced, serve_task};
use crate::{
    attribution::SourceKind,
    config,
    endpoint::{Access, authorize::Sender},
    upstream::Upstream,
};

#[tokio::test]
async fn where_denials_are_only_observed_the_owners_answer_is_given_and_the_denial_recorded() {
    for (handshake, reason) in [
        (None, "unknown_sender"),
        (Some(announced(BATCH, BATCH, state::CLAIMED)), "not_owner"),
        (Some(announced(STRANGER, STRANGER, state::CLAIMED)), "no_task"),
    ] {
        let served = Served::start_observing(handshake).await;
        let answer = served.get("/v2/credentials/id-of-web").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, WEB_BODY), "{reason}");
        assert_eq!(served.request("POST", "/v2/credentials/id-of-web").await.status, 405);
        let decisions = served.decisions().await;
        let expected = [("would_deny", reason), ("deny", "malformed")];
        assert_eq!(
            decisions,
            expected.map(|(verdict, reason)| (verdict.to_owned(), reason.to_owned()))
        );
    }
}

#[tokio::test]
async fn what_holds_now_decides_on_connections_that_are_older() {
    let served = serve_task(WEB).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let mut ask = async || {
        stream
            .write_all(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    assert!(ask().await.starts_with("HTTP/1.1 200"));
    let before = Arc::clone(&served.access.borrow());
    before.attributor.registry().replace(SourceKind::Config, Vec::new());
    served.access.send_replace(Arc::new(Access {
        attributor: Arc::clone(&before.attributor),
        upstream: Upstream::build(
            &config::Upstream::Embedded(Vec::new()),
            Some(&before.upstream),
            Arc::new(Everybody),
        ),
    }));
    assert!(ask().await.starts_with("HTTP/1.1 400"));
    drop(stream);
    assert_eq!(served.reasons().await, ["owner", "no_task"]);
}

#[tokio::test]
async fn a_connection_and_its_first_request_wait_for_the_sources_together_as_long_as_one() {
    let served = Served::start_beside_silence().await;
    let stranger = Sender::of(announced(STRANGER, STRANGER, state::CONFIRMED));
    let uri = Uri::from_static("/v2/credentials/self");
    // From here on, time passes only while everybody waits for it.
    pause();
    let began = Instant::now();
    let until = served.endpoint.gate.deadline();
    let place = served.endpoint.admit(&stranger, until).await.unwrap();
    assert!(place.is_of_unresolved());
    let response = served.endpoint.answer(&stranger, &Method::GET, &uri, until).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(began.elapsed().as_secs(), BOUND.as_secs());
    drop(place);
    resume();
    assert_eq!(served.reasons().await, ["unresolved"]);
}
