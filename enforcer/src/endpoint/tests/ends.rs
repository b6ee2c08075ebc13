//! How connections end: the client's way, and the service's.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{Served, WEB, serve_task};
use crate::drain::StillBusy;

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let served = serve_task(WEB).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let address = served.address;
    drop(served.stop().await);
    assert!(idle.read_to_end(&mut Vec::new()).await.is_ok());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn who_has_connected_before_the_end_gets_an_answer() {
    let served = serve_task(WEB).await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    // Connections are accepted in order: when this one is answered, the first is waited on for its request.
    assert_eq!(served.get("/v2/credentials/id-of-web").await.status, 200);
    served.trigger.begin();
    client
        .write_all(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(served.stop().await);
}

#[tokio::test]
async fn a_client_that_has_said_everything_still_gets_its_answer() {
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served::start_before(&agent).await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    client
        .write_all(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    client.shutdown().await.unwrap();
    let (mut asked, _) = agent.accept().await.unwrap();
    asked.read_exact(&mut [0; 64]).await.unwrap();
    asked
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("{}"), "{answer}");
}

#[tokio::test]
async fn requests_that_are_cut_off_are_recorded() {
    let agent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut served = Served::start_before(&agent).await;
    let mut clients = Vec::new();
    let mut asked = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(served.address).await.unwrap();
        client
            .write_all(b"GET /v2/credentials/id-of-web HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        clients.push(client);
        // The agent never answers, so each request has a connection of its own.
        asked.push(agent.accept().await.unwrap());
    }
    assert_eq!(served.trigger.drain(Duration::ZERO).await, Err(StillBusy));
    served.tasks = JoinSet::new();
    let trail = served.stop().await;
    assert_eq!(trail.lines().count(), 20, "{trail}");
    assert_eq!(trail.matches(r#""reason":"owner""#).count(), 20);
    assert_eq!(trail.matches(r#""status":null"#).count(), 20);
}
