//! What is permitted, and nobody has credentials for.

use enforcer_common::handshake::state;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Served, UNKNOWN_V2, WEB, announced};
use crate::{attribution::Places, bpf::Mode, config};

const OWN_ID: &str = "/v2/credentials/id-of-web";
const FOREIGN_ID: &str = "/v2/credentials/id-of-batch";

/// Serves task web out of no files at all.
async fn serve_nothing(mode: Mode) -> Served {
    let places = Places {
        mode,
        ..Places::default()
    };
    let web = announced(WEB, WEB, state::CONFIRMED);
    let nothing = config::Upstream::Embedded(Vec::new());
    Served::build(Some(web), nothing, tempfile::tempdir().unwrap(), places, true).await
}

#[tokio::test]
async fn what_nobody_has_credentials_for_is_no_permit_in_the_trail_and_none_where_it_is_explained() {
    for (mode, of_foreign) in [
        (Mode::Enforce, ("deny", "not_owner")),
        (Mode::Observe, ("would_deny", "not_owner")),
    ] {
        let served = serve_nothing(mode).await;
        let expected = [(OWN_ID, ("deny", "no_credentials")), (FOREIGN_ID, of_foreign)];
        for (target, decided) in expected {
            let answer = served.get(target).await;
            assert_eq!((answer.status, answer.body.as_str()), (400, UNKNOWN_V2), "{target}");
            assert_eq!(served.endpoint.explain(WEB, target).await.names(), decided, "{target}");
        }
        let recorded = expected.map(|(_, (verdict, reason))| (verdict.to_owned(), reason.to_owned()));
        assert_eq!(served.decisions().await, recorded);
    }
}

#[tokio::test]
async fn an_id_the_agent_does_not_know_is_no_permit_in_the_trail_and_the_agent_is_not_asked_to_explain() {
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served::start_before(&agent).await;
    // Nobody accepts: this would take long if the agent were asked.
    let explained = served.endpoint.explain(WEB, OWN_ID).await;
    assert_eq!(explained.names(), ("permit", "owner"));
    let agent = async {
        let (mut asked, _) = agent.accept().await.unwrap();
        asked.read_exact(&mut [0; 64]).await.unwrap();
        let unknown = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        asked.write_all(unknown).await.unwrap();
    };
    let (answer, ()) = tokio::join!(served.get(OWN_ID), agent);
    assert_eq!((answer.status, answer.body.as_str()), (400, UNKNOWN_V2));
    assert_eq!(served.reasons().await, ["no_credentials"]);
}
