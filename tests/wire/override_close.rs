//! A closing handshake under way continues after a kill, a drain or the maximum age.

use pulsegate_test_kit::frame::Role;
use tokio::time::sleep;

use crate::wire::peer::{CONFORMING, MUTE};
use crate::wire::rig::{Rig, Setup, millis, secs, together, variant};

/// A `timeout` that allows a late answer of the peer.
const LONG_TIMEOUT: &str = "interval = \"60s\"\ntimeout = \"6s\"\njitter = 0\nclose_grace = \"500ms\"";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Kill,
    Drain,
    MaximumAge,
}

async fn stands(order: Order, closer: Role) {
    let drain = match order {
        Order::MaximumAge => "delay = \"0s\"\nwindow = \"0s\"\nmax_connection_age = \"1500ms\"",
        Order::Kill | Order::Drain => "",
    };
    let rig = Rig::set_up(Setup { heartbeat: LONG_TIMEOUT, drain, ..Setup::default() }).await;
    let (client, app) = rig.pair("/closing").await;
    let (closing, other, initiator) = match closer {
        Role::Client => (&client, &app, "client"),
        Role::App => (&app, &client, "upstream"),
    };
    other.habits(MUTE);
    closing.close(4000, "mine").await;
    other.closed(secs(5)).await;
    match order {
        Order::Kill => drop(rig.kill("/closing", &[]).await),
        Order::Drain => rig.proxy.terminate(),
        Order::MaximumAge => sleep(millis(1000)).await,
    }
    sleep(millis(1500)).await;
    other.habits(CONFORMING);
    other.close(4000, "mine").await;
    other.finish().await;
    for peer in [&client, &app] {
        let seen = peer.ended(secs(5)).await;
        assert_eq!(seen.closes(), [(4000, "mine".into())], "{order:?}, {closer:?} closes: {seen:?}");
    }
    rig.logs("/closing", initiator, "normal", 4000, 4000).await;
}

#[tokio::test]
async fn s61_codes_of_a_closing_handshake_stand() {
    let mut variants = Vec::new();
    for order in [Order::Kill, Order::Drain, Order::MaximumAge] {
        for closer in [Role::Client, Role::App] {
            variants.push(variant(format!("{order:?}, {closer:?} closes"), stands(order, closer)));
        }
    }
    together(variants).await;
}
