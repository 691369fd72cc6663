//! Many sessions: sorted, filtered, and page by page.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use pulsegate_test_kit::frame::{BINARY, FIN, Frame};
use pulsegate_test_kit::wait::{wait_for, wait_until, wait_until_async};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::admin::api::is_whole;
use crate::admin::rig::{Rig, connections, text_id};

const SESSIONS: usize = 60;

/// Returns the ids on all pages of `query`, in their order.
async fn walk(rig: &Rig, query: &str) -> Vec<String> {
    walk_from(rig, query, String::new()).await
}

/// As [`walk`], from this parameter on.
async fn walk_from(rig: &Rig, query: &str, mut cursor: String) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let page = rig.get(&format!("/v1/connections?{query}{cursor}")).await;
        ids.extend(connections(&page).iter().map(text_id));
        let Some(next) = page["next_cursor"].as_str() else { return ids };
        assert!(connections(&page).len() <= SESSIONS && ids.len() <= 2 * SESSIONS, "it does not end: {page}");
        cursor = format!("&cursor={next}");
    }
}

async fn total(rig: &Rig, query: &str) -> u64 {
    let list = rig.get(&format!("/v1/connections?{query}")).await;
    list["total"].as_u64().expect("a number")
}

#[tokio::test]
async fn every_session_is_on_one_page_whatever_the_order() {
    let mut rig = Rig::with(|config| {
        // No session is pinged during the test.
        config.with("[heartbeat]\ninterval = \"5m\"\n[[route]]\npath = \"/other/\"\n")
    })
    .await;
    let mut sessions = Vec::new();
    for session in 0..SESSIONS {
        let path = if session % 3 == 0 { "/other/x" } else { "/raw" };
        let (mut client, app) = rig.session(path).await;
        // Each session has sent another amount, except for some that have sent nothing.
        let size = session / 2;
        if size > 0 {
            client.write_all(&Frame::client(FIN | BINARY, vec![7; size]).bytes()).await.expect("it is open");
            client.flush().await.expect("it is open");
        }
        sessions.push((client, app));
    }
    let total_bytes = 2 * (1..SESSIONS / 2).map(|size| size + 6).sum::<usize>();
    let arrived = async || -> u64 {
        let list = rig.get("/v1/connections?limit=10000").await;
        connections(&list).iter().filter_map(|conn| conn["in"]["bytes"].as_u64()).sum()
    };
    wait_until_async("all is read", arrived, |bytes| *bytes == total_bytes as u64).await;

    let by_opening = walk(&rig, "limit=10000").await;
    let all: BTreeSet<_> = by_opening.iter().cloned().collect();
    assert_eq!((by_opening.len(), all.len()), (SESSIONS, SESSIONS));
    assert_eq!(walk(&rig, "").await, by_opening, "one page of 100 holds them all");
    for sort in ["opened", "rtt", "idle", "misses", "bytes_in", "bytes_out", "client", "route", "held", "closed"] {
        let ascending = walk(&rig, &format!("sort={sort}&limit=7")).await;
        let descending = walk(&rig, &format!("sort=-{sort}&limit=13")).await;
        for ids in [&ascending, &descending] {
            assert_eq!(ids.len(), SESSIONS, "{sort}: each once");
            assert_eq!(ids.iter().cloned().collect::<BTreeSet<_>>(), all, "{sort}");
        }
        // No round trip is known, and unknown values come last in either order.
        assert!(ascending.iter().rev().eq(&descending), "{sort}: {ascending:?} {descending:?}");
    }
    let newest = rig.get("/v1/connections?sort=-opened&limit=1").await;
    assert_eq!((&newest["total"], connections(&newest).len()), (&SESSIONS.into(), 1));
    assert_eq!(text_id(&connections(&newest)[0]), by_opening[SESSIONS - 1]);
    let by_bytes = rig.get("/v1/connections?sort=-bytes_in&limit=10000").await;
    let bytes: Vec<_> = connections(&by_bytes).iter().map(|conn| conn["in"]["bytes"].as_u64()).collect();
    assert!(bytes.is_sorted_by(|one, other| one >= other), "{bytes:?}");

    assert_eq!(total(&rig, "route=/other/").await, 20);
    assert_eq!(total(&rig, "route=/nothing").await, 0);
    assert_eq!(total(&rig, "client=127.0.0.0/8").await, SESSIONS as u64);
    assert_eq!(total(&rig, "client=127.0.0.1&route=/").await, 40);
    assert_eq!(total(&rig, "client=10.0.0.0/8").await, 0);
    assert_eq!(total(&rig, "client=::/0").await, 0);
    assert_eq!(total(&rig, "misses_gte=0").await, SESSIONS as u64);
    assert_eq!(total(&rig, "misses_gte=1").await, 0);
    assert_eq!(walk(&rig, "route=/other/&sort=-opened&limit=6").await.len(), 20);
    rig.proxy.finish().await;
}

#[tokio::test]
async fn a_page_begins_where_the_last_one_ended_even_if_sessions_close_in_between() {
    let mut rig = Rig::start().await;
    let mut sessions = Vec::new();
    for _ in 0..12 {
        sessions.push(rig.session("/raw").await);
    }
    let first = rig.get("/v1/connections?limit=5").await;
    let cursor = first["next_cursor"].as_str().expect("there are more").to_owned();
    // Four of the listed sessions close, and two open.
    for (client, mut app) in sessions.drain(..4) {
        drop(client);
        // The end of the client is relayed before the app closes, too.
        let _ = wait_for("the end of the client", app.read_to_end(&mut Vec::new())).await;
    }
    rig.proxy.ws_closes(4).await;
    for _ in 0..2 {
        sessions.push(rig.session("/raw").await);
    }
    let rest = walk_from(&rig, "limit=5", format!("&cursor={cursor}")).await;
    assert_eq!(rest.len(), 7 + 2, "the others, and those that came");
    for conn in connections(&first) {
        assert!(!rest.contains(&text_id(conn)), "{conn} is shown twice");
    }

    assert_eq!(total(&rig, "").await, 10);
    assert_eq!(total(&rig, "state=open").await, 10);
    assert_eq!(total(&rig, "state=closed").await, 4);
    assert_eq!(walk(&rig, "state=all&limit=3").await.len(), 14);
    // The newest end comes first, unless the query sets another order.
    let ended: Vec<_> = rig.proxy.logged("ws.close").iter().map(|line| line["conn_id"].clone()).collect();
    let newest_first = walk(&rig, "state=closed&limit=3").await;
    assert!(newest_first.iter().rev().eq(&ended), "{newest_first:?} of {ended:?}");
    assert_eq!(walk(&rig, "state=closed&sort=-closed").await, newest_first);
    assert_eq!(walk(&rig, "state=all&sort=closed&limit=3").await[..4], ended, "open sessions come last");
    let closed = rig.get("/v1/connections?state=closed&sort=-opened").await;
    for conn in connections(&closed) {
        is_whole(conn);
        assert_eq!((&conn["state"], &conn["close"]["reason"]), (&"closed".into(), &"client_lost".into()), "{conn}");
    }
    rig.proxy.finish().await;
}

#[tokio::test]
async fn only_so_many_closed_sessions_are_remembered() {
    let mut rig = Rig::with(|config| config.admin("closed_sessions = 3")).await;
    for session in 0..5 {
        drop(rig.session("/raw").await);
        rig.proxy.ws_closes(session + 1).await;
    }
    let closed = rig.get("/v1/connections?state=closed").await;
    assert_eq!(closed["total"], 3);
    let logged: Vec<_> = rig.proxy.logged("ws.close").iter().map(|line| line["conn_id"].clone()).collect();
    let kept: Vec<_> = connections(&closed).iter().map(|conn| conn["id"].clone()).collect();
    assert!(kept.iter().rev().eq(&logged[2..]), "the last ones, newest first: {kept:?} of {logged:?}");
    let gone = format!("/v1/connections/{}", logged[0].as_str().expect("an id"));
    rig.ask("GET", &gone, &[], "").await.refuses(404, "not_found", &["neither open nor among the last"]);
    rig.proxy.finish().await;
}

#[tokio::test]
async fn the_list_is_whole_while_sessions_come_and_go() {
    let rig = Rig::start().await;
    let coming = join_all((0..4).map(|_| async {
        for _ in 0..10 {
            let mut session = rig.proxy.websocket("/echo").await;
            session.close(None).await.expect("it is open");
        }
    }));
    let mut lists = 0;
    let looking = async {
        loop {
            let list = rig.get("/v1/connections?state=all&limit=10000").await;
            let ids: BTreeSet<_> = connections(&list).iter().map(text_id).collect();
            assert_eq!(ids.len(), connections(&list).len(), "one is there twice: {list}");
            lists += 1;
        }
    };
    tokio::select! {
        _ = coming => {}
        () = looking => {}
    }
    assert!(lists > 0);
    wait_until("all have ended", || rig.proxy.logged("ws.close").len(), |ended| *ended == 40).await;
    assert_eq!(total(&rig, "state=closed").await, 40);
    rig.proxy.finish().await;
}
