//! Lengths that are encoded longer than needed are relayed unchanged.

use pulsegate_test_kit::frame::{BINARY, LengthForm, Role, TEXT};

use crate::wire::peer::MUTE;
use crate::wire::rig::{QUIET, Rig, secs, together, variant};

/// Asserts that the bytes of one frame, and a message behind it, arrive unchanged.
async fn relayed(sender: Role, length: LengthForm, opcode: u8, size: usize) {
    let rig = Rig::start(QUIET).await;
    let (client, app) = rig.pair("/length").await;
    let (from, to) = if sender == Role::Client { (&client, &app) } else { (&app, &client) };
    let frame = sender.raw(0x80 | opcode, length, &vec![b'x'; size]);
    from.habits(MUTE);
    from.send(&frame).await;
    from.text("behind").await;
    let expected = [frame, sender.text("behind")].concat();
    let seen = to.wait("all bytes", secs(5), |record| record.bytes >= expected.len() || record.end.is_some()).await;
    // The proxy leaves the client's own mask in place.
    assert!(seen.start == expected, "received {seen:?}: {:02x?}", &seen.start[..seen.start.len().min(16)]);
    client.close(1000, "").await;
    app.closed(secs(5)).await;
    rig.logs("/length", "client", "normal", 1000, 1000).await;
}

#[tokio::test]
async fn lengths_longer_than_needed_are_relayed_both_ways() {
    let mut variants = Vec::new();
    for sender in [Role::Client, Role::App] {
        for (length, opcode, size) in [
            (LengthForm::Extended16, TEXT, 2),
            (LengthForm::Extended16, BINARY, 0),
            (LengthForm::Extended16, TEXT, 125),
            (LengthForm::Extended64, TEXT, 2),
            (LengthForm::Extended64, BINARY, 200),
            (LengthForm::Extended64, BINARY, 65_535),
        ] {
            let name = format!("{sender:?}: {length:?} for {size} bytes");
            variants.push(variant(name, relayed(sender, length, opcode, size)));
        }
    }
    together(variants).await;
}
