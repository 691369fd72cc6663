//! One session from its opening to its end, and the verdict on it.

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use pulsegate::heartbeat::Mode;
use pulsegate::relay::SessionOrder;
use pulsegate::session::{Abort, EndReason, Ending};
use tokio::time::Instant;

use super::judge::{Passed, Said, follow};
use super::peer::{CLOSE, PING, PONG};
use super::plan::Plan;
use super::wire::{LATE, LATE_MOST};
use super::world::World;

/// The maximum number of steps of one session.
const STEPS_MOST: u32 = 60;
/// The approximate maximum of bytes that both peers send in total.
const BYTES_MOST: usize = 1 << 20;
/// The tolerance for operations that find a leg ready late, and for timers of a millisecond.
const SLACK: Duration = Duration::from_secs(2).saturating_add(LATE.saturating_mul(2 * LATE_MOST));

/// The events on which the verdict depends.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each may be true with each other")]
struct Facts {
    /// The client may count as dead: it has not answered, or not taken bytes, or has left.
    doubtful: bool,
    /// A leg was slow at some time.
    slow: bool,
    /// A cause other than the peers may end the session, or cut it short.
    disturbed: bool,
    /// A frame is in progress whose end will not be sent.
    stuck: bool,
    /// The proxy was ordered to ping the app.
    probed: bool,
    /// The proxy was ordered to treat the client as vanished.
    vanished: bool,
    /// Writes failed to a peer that has not ended: it gets no Close that it could answer.
    unwritable: bool,
    /// The time of the first Close.
    closed: Option<Instant>,
}

/// The last event of a session.
#[derive(Clone, Copy, Debug)]
enum Final {
    Silence,
    ClientCloses,
    AppCloses,
    ClientEnds,
    AppEnds,
    ClientResets,
    AppResets,
    Kill,
    Frozen,
}

pub async fn play(plan: Plan, input: &mut Unstructured<'_>) {
    let mut world = World::new(&plan);
    let mut facts = Facts { disturbed: plan.max_age.is_some(), ..Facts::default() };
    for _ in 0..STEPS_MOST {
        let sent = world.client.said.len() + world.app.said.len();
        if input.is_empty() || world.session.is_finished() || sent > BYTES_MOST {
            break;
        }
        if step(&mut world, &mut facts, input).await.is_err() {
            break;
        }
    }
    let choice = input.arbitrary().unwrap_or(0);
    finish(&mut world, &mut facts, &plan, choice).await;
    let held = world.memory.total();
    let ending = (&mut world.session).await.expect("the session does not panic");
    world.trace(&format!("{ending:?}"));
    assert_eq!(held, 0, "bytes are held by a session that has ended");
    judge(&world, &facts, &plan, &ending);
}

fn millis(input: &mut Unstructured<'_>) -> Result<Duration> {
    Ok(Duration::from_millis(input.arbitrary::<u8>()?.into()))
}

fn length(input: &mut Unstructured<'_>) -> Result<usize> {
    let len = usize::from(input.arbitrary::<u8>()?);
    Ok(match input.arbitrary::<u8>()? {
        0..128 => len % 126,
        128..200 => len * 5,
        200..240 => len * 100,
        _ => 65_500 + len * 200,
    })
}

async fn step(world: &mut World, facts: &mut Facts, input: &mut Unstructured<'_>) -> Result<()> {
    let what: u8 = input.arbitrary()?;
    let client = what & 0x80 == 0;
    world.trace(&format!("step {} of the {}", what & 0x1F, if client { "client" } else { "app" }));
    let peer = world.peer(client);
    match what & 0x1F {
        0..=4 if !peer.inside_frame => {
            let (kind, len) = (input.arbitrary()?, length(input)?);
            let frame = peer.frame(kind, len);
            peer.send(&frame);
        }
        5 | 6 if !peer.inside_frame => {
            // All at once, so that one poll exceeds its budget.
            let (kind, count): (u8, u16) = (input.arbitrary()?, input.int_in_range(1..=700)?);
            let frames: Vec<_> = (0..count).flat_map(|_| peer.frame(kind & !7 | kind & 1, 6)).collect();
            peer.send(&frames);
        }
        7..=9 if !peer.inside_frame => pieces(world, facts, input, client, true).await?,
        10 | 11 if client && !peer.inside_frame => pieces(world, facts, input, client, false).await?,
        12..=15 => world.pause(millis(input)?).await,
        16 | 17 => world.pause(millis(input)? * 100).await,
        18 | 19 => {
            let room = length(input)?;
            peer.wire().widen(Some(room));
            facts.slow = true;
            facts.doubtful |= client;
        }
        20 | 21 => peer.wire().widen(None),
        22 => {
            peer.answers = !peer.answers;
            facts.doubtful |= client;
        }
        23 => {
            world.control.give(SessionOrder::ProbeUpstream);
            facts.probed = true;
        }
        24 => {
            facts.disturbed = true;
            let orders = [
                SessionOrder::Drain { code: 1012 },
                SessionOrder::UpstreamUnresponsive,
                SessionOrder::Close { code: 4321, reason: "closed by the operator".into() },
                SessionOrder::PlayDead,
                SessionOrder::Abort(Abort::Operator),
                SessionOrder::Abort(Abort::Drain),
            ];
            let order = input.choose(&orders)?.clone();
            facts.vanished |= order == SessionOrder::PlayDead;
            facts.doubtful |= facts.vanished;
            world.control.give(order);
        }
        25 => {
            // It may be the beginning of a frame that never ends. After such a frame of the app no probe can leave, and
            // a client that is silent meanwhile is judged without one.
            (facts.disturbed, facts.stuck, facts.doubtful) = (true, true, true);
            let bytes = input.bytes(input.len().min(usize::from(what >> 5 & 3) * 3 + 1))?;
            peer.send(bytes);
        }
        26 => {
            facts.disturbed = true;
            facts.doubtful |= client;
            let way = input.arbitrary::<u8>()? % 4;
            facts.unwritable |= matches!(way, 1 | 2);
            match way {
                0 => world.reset(client),
                1 => peer.wire().fail_writes(std::io::ErrorKind::BrokenPipe),
                2 => peer.wire().fail_writes(std::io::ErrorKind::TimedOut),
                _ => peer.end(),
            }
        }
        27 | 28 => {
            facts.doubtful |= client;
            facts.closed.get_or_insert_with(Instant::now);
            let code = [1000, 1001, 3000, 4999][usize::from(input.arbitrary::<u8>()? & 3)];
            close(peer, code);
        }
        _ => world.pause(millis(input)? / 16).await,
    }
    Ok(())
}

fn close(peer: &mut super::peer::Peer, code: u16) {
    let payload = [&code.to_be_bytes()[..], b"bye"].concat();
    peer.close(if code == 3000 { &[] } else { &payload });
}

/// Sends one frame in pieces with pauses; or, for the client, as one record that can be read only as a whole.
async fn pieces(
    world: &mut World,
    facts: &mut Facts,
    input: &mut Unstructured<'_>,
    client: bool,
    readable: bool,
) -> Result<()> {
    let (kind, len) = (input.arbitrary()?, length(input)?);
    let frame = world.peer(client).frame(kind, len);
    let count = input.int_in_range(2..=6)?;
    let stops = input.ratio(1, 24)?;
    let mut rest = &frame[..];
    for left in (0..count).rev() {
        let cut = if left == 0 { rest.len() } else { usize::from(input.arbitrary::<u8>()?).min(rest.len() - 1) };
        let (piece, behind) = rest.split_at(cut);
        rest = behind;
        if left == 0 && stops {
            (facts.stuck, facts.doubtful) = (true, true);
            return Ok(());
        }
        world.peer(client).piece(piece, readable || left == 0, left == 0);
        let pause = millis(input).unwrap_or_default();
        world.pause(pause).await;
    }
    Ok(())
}

/// Ends the session in the chosen way, and checks the bound of that way.
async fn finish(world: &mut World, facts: &mut Facts, plan: &Plan, choice: u8) {
    use Final::*;
    let finals = [Silence, ClientCloses, AppCloses, ClientEnds, AppEnds, ClientResets, AppResets, Kill, Frozen];
    let mut last = finals[usize::from(choice) % finals.len()];
    if matches!(plan.policy.mode, Mode::Off) {
        // In this mode the silence of a client does not end the session; neither does any end of the client that is not
        // read, nor a Close that cannot be sent or read in the middle of a frame.
        last = match last {
            _ if facts.vanished => Kill,
            Silence | Frozen => ClientResets,
            ClientCloses if facts.stuck || world.client.inside_frame => ClientResets,
            AppCloses if facts.stuck => AppResets,
            other => other,
        };
    }
    if matches!(last, AppCloses) && world.app.inside_frame {
        // The app cannot send its Close, and a client that answers is not closed.
        last = AppResets;
    }
    if !matches!(last, Frozen) {
        world.client.wire().widen(None);
        world.app.wire().widen(None);
    }
    // A closing handshake in progress is not restarted, even if its first Close has not been read.
    let fresh = facts.closed.is_none() && !world.control.is_closing() && !world.session.is_finished();
    let whole = !facts.stuck && !world.client.inside_frame && !world.app.inside_frame;
    let obliging = world.client.polite && world.app.polite && !world.client.ended && !world.app.ended;
    // For a client that counts as vanished neither its Close nor its end is read, and a peer that gets no Close does
    // not answer it.
    let unanswered = match last {
        ClientCloses | AppCloses | ClientEnds => facts.vanished || facts.unwritable,
        ClientResets => facts.vanished,
        _ => false,
    };
    let prompt = whole && obliging && fresh && !unanswered;
    let policy = &plan.policy;
    let begun = Instant::now();
    match last {
        Silence => world.client.answers = false,
        ClientCloses => close(&mut world.client, 1000),
        AppCloses => close(&mut world.app, 1001),
        ClientEnds => world.client.end(),
        AppEnds => world.app.end(),
        ClientResets => world.reset(true),
        AppResets => world.reset(false),
        Kill => world.control.give(SessionOrder::Close { code: 4000, reason: "killed".into() }),
        Frozen => {
            world.client.answers = false;
            world.client.wire().widen(Some(0));
            world.app.wire().widen(Some(0));
        }
    }
    world.trace(&format!("{last:?}, {facts:?}, {plan:?}"));
    let quiet = !matches!(last, ClientCloses | AppCloses);
    facts.doubtful |= !matches!(last, AppCloses | AppEnds | AppResets | Kill);
    facts.disturbed |= quiet;
    let most = match last {
        Silence if prompt && !facts.slow && !policy.adaptive => {
            policy.interval + policy.timeout * policy.max_missed + policy.timeout / 8 + policy.close_grace
        }
        Kill if prompt => Duration::from_secs(2) + policy.close_grace,
        // All other ends are visible to the proxy at once, without a time to detect a dead client.
        _ if prompt && !matches!(last, Silence | Frozen) => policy.close_grace,
        _ => plan.most(),
    };
    world.ended(most + SLACK, &format!("{last:?} ({facts:?}, {policy:?})")).await;
    if fresh && matches!(last, Kill) {
        let dropped = world.client.wire().dropped.expect("it has ended") - begun;
        let most = Duration::from_secs(2) + policy.close_grace + SLACK;
        assert!(dropped <= most, "a killed client was let go after {dropped:?}");
    }
}

fn judge(world: &World, facts: &Facts, plan: &Plan, ending: &Ending) {
    let blamed =
        matches!(ending.cause.reason(), EndReason::HeartbeatTimeout | EndReason::SlowReader | EndReason::Trickle);
    assert!(facts.doubtful || !blamed, "a live client was torn down: {ending:?}\n{}", world.story());

    let (up, down) = (Said::of(&world.client.said, true), Said::of(&world.app.said, false));
    let (to_app, to_client) = (world.app.wire().accepted.clone(), world.client.wire().accepted.clone());
    let (got_app, got_client) = (Said::of(&to_app, true), Said::of(&to_client, false));
    let app_pings = down.payloads(PING);
    let client_pings = up.payloads(PING);
    let own_pings: Vec<_> = got_client.payloads(PING).into_iter().filter(|ping| !app_pings.contains(ping)).collect();
    let pongs_up = got_app.payloads(PONG);
    let pongs_down = got_client.payloads(PONG);
    assert!(app_pings.iter().all(|ping| count(&pongs_up, ping) <= 1), "two pongs for one ping of the app's");
    assert!(client_pings.iter().all(|ping| count(&pongs_down, ping) <= 1), "two pongs for one ping of the client's");

    let answers_client = plan.policy.client_ping == pulsegate::heartbeat::ClientPing::Answer;
    let passed_up = follow(
        &up,
        &to_app,
        true,
        |frame| match frame.opcode {
            PONG => own_pings.contains(&frame.payload()) || count(&pongs_up, &frame.payload()) > 0,
            PING => answers_client,
            CLOSE => facts.disturbed,
            _ => false,
        },
        |frame| match frame.opcode {
            PING => facts.probed && frame.payload().len() == 8,
            PONG => app_pings.contains(&frame.payload()),
            _ => true,
        },
    );
    let passed_down = follow(
        &down,
        &to_client,
        false,
        // The app answers the proxy's own pings, too.
        |frame| match frame.opcode {
            PONG => frame.payload().len() == 8 || count(&pongs_down, &frame.payload()) > 0,
            CLOSE => facts.disturbed,
            _ => false,
        },
        |frame| match frame.opcode {
            PING => {
                own_pings.contains(&frame.payload()) && frame.payload().len() == 8
                    || app_pings.contains(&frame.payload())
            }
            PONG => client_pings.contains(&frame.payload()),
            _ => true,
        },
    );
    codes(ending, &up, &passed_down, ending.client_code, "client");
    codes(ending, &down, &passed_up, ending.upstream_code, "app");
    // A peer that takes no bytes for too long, or takes too long in total, loses the bytes queued for it.
    let longest = world.client.wire().longest_full().max(world.app.wire().longest_full());
    let stalled = longest + SLACK >= plan.policy.write_stall;
    let late = facts.closed.is_some_and(|at| facts.slow && at.elapsed() + SLACK >= plan.policy.max_deferral);
    let orderly = !(facts.disturbed || facts.stuck || stalled || late)
        && matches!(ending.cause.reason(), EndReason::Normal | EndReason::ClientLost);
    if orderly && world.client.polite && world.app.polite {
        assert!(passed_up.all, "not all that the client sent has come: {ending:?}\n{}", world.story());
        assert!(passed_down.all, "not all that the app sent has come: {ending:?}\n{}", world.story());
    }
}

fn count(payloads: &[Vec<u8>], payload: &[u8]) -> usize {
    payloads.iter().filter(|other| **other == payload).count()
}

/// Checks the code that is reported for one side: it was written to it, or read from it, or is 1006.
fn codes(ending: &Ending, said: &Said<'_>, written: &Passed, code: u16, side: &str) {
    let known = [said.close(), written.close, Some(1006)];
    assert!(said.broken || known.contains(&Some(code)), "{side}: {code}, not one of {known:?}: {ending:?}");
}
