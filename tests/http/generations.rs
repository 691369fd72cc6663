//! A reload changes the next request of a connected client, and nothing under way.

use crate::pool::{GET, OK, answered, warm};
use crate::support::{App, Proxy};
use crate::upgrade::{handshake, switching};

/// "a", masked with zeros.
const CLIENT_TEXT: &[u8] = b"\x81\x81\0\0\0\0a";
const SERVER_TEXT: &[u8] = b"\x81\x01b";

#[tokio::test]
async fn the_next_request_of_an_open_connection_goes_to_the_new_app() {
    let (old, new) = (App::start().await, App::start().await);
    let proxy = Proxy::before(&old);
    let mut client = proxy.connect();
    client.send(GET).await;
    let mut upstream = old.accept().await;
    upstream.head().await;
    // During the request: it ends in the generation in which it began.
    proxy.reload(new.target(), |_| {});
    upstream.send(OK).await;
    client.head().await;
    client.expect("ok").await;

    warm(&new, &mut client).await;
    proxy.ended().await;
}

#[tokio::test]
async fn idle_connections_to_an_app_that_is_gone_are_closed_though_nobody_asks() {
    let (old, new) = (App::start().await, App::start().await);
    let proxy = Proxy::before(&old);
    let mut client = proxy.connect();
    let mut upstream = warm(&old, &mut client).await;
    proxy.reload(new.target(), |_| {});
    assert_eq!(upstream.rest().await, "", "it is closed");
    proxy.ended().await;
}

#[tokio::test]
async fn an_app_that_stays_keeps_its_connections() {
    let app = App::start().await;
    let proxy = Proxy::before(&app);
    let mut client = proxy.connect();
    let mut upstream = warm(&app, &mut client).await;
    proxy.reload(app.target(), |settings| settings.limits.headers = 8);
    client.send(GET).await;
    answered(&mut upstream, &mut client).await;
    proxy.ended().await;
}

#[tokio::test]
async fn an_open_session_keeps_its_app_and_its_generation_and_the_next_one_has_others() {
    let (old, new) = (App::start().await, App::start().await);
    let proxy = Proxy::before(&old);
    let mut client = proxy.connect();
    client.send(handshake("")).await;
    let mut upstream = old.accept().await;
    upstream.head().await;
    upstream.send(switching("")).await;
    client.head().await;
    client.exchange(CLIENT_TEXT, &mut upstream, SERVER_TEXT).await;
    proxy.reload(new.target(), |_| {});
    client.exchange(CLIENT_TEXT, &mut upstream, SERVER_TEXT).await;

    let mut later = proxy.connect();
    later.send(handshake("")).await;
    let mut other = new.accept().await;
    other.head().await;
    other.send(switching("")).await;
    later.head().await;
    later.exchange(CLIENT_TEXT, &mut other, SERVER_TEXT).await;
    let generations: Vec<u64> =
        proxy.registry.sessions().iter().map(|session| session.facts.config_generation).collect();
    assert_eq!(generations, [1, 2]);
    drop((client, later, upstream, other));
    proxy.ended().await;
}
