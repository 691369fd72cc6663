use super::*;
use crate::heartbeat::UpstreamPolicy;

const SECOND: Duration = Duration::from_secs(1);
const MISSED: &str = "missed";

/// Sessions through which a ping can be sent, according to the registry.
const SOME: ProbeSessions = ProbeSessions { any: true, pinged: true };
const NONE: ProbeSessions = ProbeSessions { any: false, pinged: false };

/// The behaviour of the app in a health check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    Answers,
    Refuses,
    /// The kernel accepts the connection, and nothing else happens.
    Frozen,
    /// The proxy has no port or descriptor left for the check.
    Short,
}

/// A driver of a monitor, with an app reached through its sessions and by health checks.
struct Rig {
    base: Instant,
    now: Instant,
    liveness: UpstreamLiveness,
    watch: LivenessMonitor,
    sessions: ProbeSessions,
    /// True if a ping can be written, and true if it is answered.
    ping: (bool, bool),
    app: App,
    /// The ticks, each with its second.
    seen: Vec<(u64, String)>,
}

impl Rig {
    /// Creates a rig with an app that was reached and is silent.
    fn listening(sessions: ProbeSessions) -> Self {
        let base = crate::any_instant();
        Self::with(UpstreamLiveness::new(base), UpstreamPolicy::default(), base, sessions)
    }

    /// Creates a rig with an app that was not reached yet.
    fn unreached(app: App) -> Self {
        let base = crate::any_instant();
        Self { app, ..Self::with(UpstreamLiveness::unreached(base), UpstreamPolicy::default(), base, NONE) }
    }

    fn with(liveness: UpstreamLiveness, policy: UpstreamPolicy, base: Instant, sessions: ProbeSessions) -> Self {
        let watch = LivenessMonitor::new(policy, base, &liveness);
        Self { base, now: base, liveness, watch, sessions, ping: (true, true), app: App::Answers, seen: Vec::new() }
    }

    /// Runs to `seconds` after the beginning, as the driver does.
    fn run(&mut self, seconds: u64) -> &mut Self {
        let end = self.base + SECOND * u32::try_from(seconds).expect("a short run");
        while self.now <= end {
            self.look();
            let next = self.watch.next_tick(self.now, &self.liveness, self.sessions);
            if next > end {
                break;
            }
            self.now = next;
        }
        self.now = end;
        self
    }

    fn look(&mut self) {
        loop {
            let tick = self.watch.tick(self.now, &self.liveness, self.sessions);
            if tick == Tick::Wait {
                return;
            }
            self.note(tick);
            match tick {
                Tick::Probe if self.ping.0 => {
                    self.liveness.probe_written(self.now);
                    if self.ping.1 {
                        self.liveness.record_bytes(self.now + SECOND / 10);
                    }
                }
                Tick::Check(_) => self.check(),
                _ => {}
            }
        }
    }

    fn check(&mut self) {
        let end = match self.app {
            App::Answers => {
                self.liveness.record_connect(ConnectOutcome::Opened);
                self.liveness.record_response(self.now);
                HealthCheckResult::Passed
            }
            App::Refuses => {
                self.liveness.record_connect(ConnectOutcome::Refused);
                HealthCheckResult::Refused
            }
            App::Short => HealthCheckResult::Skipped,
            App::Frozen => {
                self.liveness.record_connect(ConnectOutcome::Opened);
                return;
            }
        };
        let tick = self.watch.checked(end, self.now, &self.liveness, self.sessions);
        if tick != Tick::Wait {
            self.note(tick);
        }
    }

    fn note(&mut self, tick: Tick) {
        let word = match tick {
            Tick::Wait => return,
            Tick::Probe => "ping",
            Tick::Check(HealthCheck::Connect) => "connect",
            Tick::Check(HealthCheck::Request) => "request",
            Tick::Missed { .. } => MISSED,
            Tick::Unready { refused: true, .. } => "unready: refused",
            Tick::Unready { refused: false, .. } => "unready: silent",
            Tick::Recovered => "recovered",
            Tick::GiveUp { .. } => "given up",
        };
        self.seen.push(((self.now - self.base).as_secs(), word.into()));
    }

    /// Returns the ticks except pings and checks, with their seconds.
    fn verdicts(&self) -> Vec<(u64, &str)> {
        let asked = |word: &str| matches!(word, "ping" | "connect" | "request");
        self.seen.iter().map(|(at, word)| (*at, word.as_str())).filter(|(_, word)| !asked(word)).collect()
    }

    fn seconds_of(&self, word: &str) -> Vec<u64> {
        self.seen.iter().filter(|(_, seen)| seen == word).map(|(at, _)| *at).collect()
    }

    fn is_ready(&self) -> bool {
        self.liveness.is_responsive()
    }
}

#[test]
fn a_quiet_app_is_pinged_once_an_interval_and_stays_ready() {
    let mut rig = Rig::listening(SOME);
    rig.run(60);
    assert_eq!(rig.seconds_of("ping"), [15, 30, 45], "{:?}", rig.seen);
    assert!(rig.seen.len() == 3 && rig.is_ready(), "{:?}", rig.seen);
}

#[test]
fn a_frozen_app_is_missed_first_and_given_up_later() {
    let mut rig = Rig::listening(SOME);
    (rig.ping, rig.app) = ((true, false), App::Frozen);
    rig.run(120);
    assert_eq!(rig.verdicts(), [(25, MISSED), (25, "unready: silent"), (60, "given up")], "{:?}", rig.seen);
    assert!(!rig.is_ready());
}

#[test]
fn an_app_that_is_heard_again_recovers_with_its_sessions() {
    let mut rig = Rig::listening(SOME);
    (rig.ping, rig.app) = ((true, false), App::Frozen);
    rig.run(40);
    rig.liveness.record_bytes(rig.now);
    (rig.ping, rig.app) = ((true, true), App::Answers);
    rig.run(120);
    assert_eq!(rig.verdicts(), [(25, MISSED), (25, "unready: silent"), (40, "recovered")], "{:?}", rig.seen);
    assert!(rig.is_ready(), "{:?}", rig.seen);
}

#[test]
fn s58_pongs_that_are_missing_do_not_count_against_an_app_that_answers_requests() {
    // The handler of a session does not read, or earlier data is in front of its pong.
    let mut rig = Rig::listening(SOME);
    rig.ping = (true, false);
    rig.run(600);
    assert_eq!(rig.verdicts(), [], "{:?}", rig.seen);
    let (pings, requests) = (rig.seconds_of("ping").len(), rig.seconds_of("request").len());
    assert!(rig.is_ready() && pings >= 20 && requests == pings, "one beside each: {:?}", rig.seen);

    // Without requests, a connection proves nothing, and the pong decides.
    let mut rig = Rig::listening(SOME);
    rig.watch = LivenessMonitor::new(UpstreamPolicy::default(), rig.base, &rig.liveness).without_requests();
    rig.ping = (true, false);
    rig.run(59);
    assert_eq!(rig.verdicts(), [(25, MISSED), (25, "unready: silent")], "{:?}", rig.seen);
    assert!(rig.seconds_of("request").is_empty(), "{:?}", rig.seen);
}

#[test]
fn an_answer_within_the_millisecond_of_the_ping_counts() {
    let base = crate::any_instant();
    for answered in [true, false] {
        let liveness = UpstreamLiveness::new(base);
        let mut watch = LivenessMonitor::new(UpstreamPolicy::default(), base, &liveness);
        let asked = base + 15 * SECOND + Duration::from_micros(700);
        assert_eq!(watch.tick(base, &liveness, SOME), Tick::Wait);
        assert!(watch.next_tick(base, &liveness, SOME) <= asked);
        assert_eq!(watch.tick(asked, &liveness, SOME), Tick::Probe);
        liveness.probe_written(asked + Duration::from_micros(50));
        if answered {
            liveness.record_bytes(asked + Duration::from_micros(100));
        }
        let mut now = asked;
        let mut missed = false;
        while now < asked + 11 * SECOND {
            missed |= watch.tick(now, &liveness, SOME) == Tick::Missed { by_check: false };
            now = watch.next_tick(now, &liveness, SOME);
        }
        assert_eq!((missed, liveness.is_responsive()), (!answered, answered));
    }
}

#[test]
fn a_suspended_proxy_does_not_count_against_the_app() {
    for sessions in [SOME, NONE] {
        let mut rig = Rig::listening(sessions);
        (rig.ping, rig.app) = ((true, false), App::Frozen);
        rig.run(20);
        assert_eq!(rig.verdicts(), []);
        // Suspended for five minutes while an answer is expected; it arrives nine seconds after.
        rig.now += 300 * SECOND;
        rig.run(328);
        assert_eq!(rig.verdicts(), [], "a fresh timeout: {:?}", rig.seen);
        rig.liveness.record_response(rig.now);
        rig.run(335);
        assert!(rig.verdicts().is_empty() && rig.is_ready(), "{:?}", rig.seen);
    }
}

#[test]
fn s58_no_ping_can_leave_then_a_frozen_app_is_found_by_a_request_within_the_bound_and_given_up() {
    let mut rig = Rig::listening(SOME);
    (rig.ping, rig.app) = ((false, false), App::Frozen);
    rig.run(300);
    // 15 s + 10 s, and half a second for a ping to be written.
    assert_eq!(rig.verdicts(), [(25, MISSED), (25, "unready: silent"), (60, "given up")], "{:?}", rig.seen);
    let requests = rig.seconds_of("request");
    assert_eq!(requests[0], 15, "{requests:?}");
    assert!(requests.windows(2).all(|pair| pair[1] - pair[0] >= 15), "once an interval: {requests:?}");
    assert!(!rig.is_ready(), "not by having no session left");
}

#[test]
fn s58_no_ping_can_leave_and_an_app_that_answers_requests_is_never_missed() {
    let mut rig = Rig::listening(SOME);
    rig.ping = (false, false);
    rig.run(600);
    assert!(rig.verdicts().is_empty() && rig.is_ready(), "{:?}", rig.seen);
    assert!(rig.seconds_of("request").len() >= 35, "{:?}", rig.seen);
}

#[test]
fn s58_the_ping_of_a_session_that_has_gone_is_not_waited_for() {
    let mut rig = Rig::listening(SOME);
    rig.ping = (true, false);
    rig.run(16);
    assert_eq!(rig.seconds_of("ping"), [15]);
    rig.sessions = ProbeSessions { any: true, pinged: false };
    rig.run(29);
    assert!(rig.verdicts().is_empty() && rig.is_ready(), "the client was at fault: {:?}", rig.seen);
    assert_eq!(rig.seconds_of("request").len(), 1, "{:?}", rig.seen);
}

#[test]
fn s58_without_sessions_a_silent_app_is_asked_once_an_interval() {
    let mut rig = Rig::listening(NONE);
    rig.run(100);
    assert_eq!(rig.seconds_of("request"), [15, 30, 45, 60, 75, 90], "{:?}", rig.seen);
    assert!(rig.verdicts().is_empty() && rig.is_ready());
    rig.app = App::Frozen;
    rig.run(300);
    assert_eq!(rig.verdicts(), [(115, MISSED), (115, "unready: silent")], "no session is given up: {:?}", rig.seen);
    rig.app = App::Answers;
    rig.run(330);
    assert_eq!(rig.verdicts().last().map(|(_, word)| *word), Some("recovered"), "{:?}", rig.seen);
}

#[test]
fn s58_an_app_that_was_never_there_is_not_ready_until_it_answers() {
    let mut rig = Rig::unreached(App::Refuses);
    assert!(!rig.is_ready());
    rig.run(60);
    assert_eq!(rig.verdicts(), [(0, "unready: refused")], "once: {:?}", rig.seen);
    // The app accepts connections, and does not answer yet.
    rig.app = App::Frozen;
    rig.run(90);
    assert!(!rig.is_ready());
    rig.app = App::Answers;
    rig.run(110);
    let verdicts: Vec<_> = rig.verdicts().into_iter().map(|(_, word)| word).filter(|word| *word != MISSED).collect();
    assert_eq!(verdicts, ["unready: refused", "recovered"], "{:?}", rig.seen);
    assert!(rig.is_ready());
}

#[test]
fn s58_an_app_that_is_there_at_the_start_is_ready_and_nothing_is_told() {
    let mut rig = Rig::unreached(App::Answers);
    rig.run(5);
    assert_eq!(rig.seen, [(0, "request".to_owned())]);
    assert!(rig.is_ready());
}

#[test]
fn s58_a_client_that_is_answered_reaches_it_as_well() {
    let mut rig = Rig::unreached(App::Short);
    rig.run(5);
    assert!(!rig.is_ready() && rig.verdicts().is_empty(), "it has not been tried: {:?}", rig.seen);
    assert!(rig.liveness.record_response(rig.now), "the watch shall look");
    rig.look();
    assert!(rig.is_ready() && rig.verdicts().is_empty());
}

#[test]
fn s58_a_refused_connect_makes_it_unready_at_once_and_the_next_connect_ready() {
    for sessions in [SOME, NONE] {
        let mut rig = Rig::listening(sessions);
        rig.app = App::Refuses;
        rig.run(3);
        assert!(rig.is_ready());
        assert!(rig.liveness.record_connect(ConnectOutcome::Refused), "the watch shall look");
        rig.look();
        assert!(!rig.is_ready());
        rig.run(200);
        let pings = rig.seconds_of("ping").len();
        assert_eq!(rig.verdicts(), [(3, "unready: refused")], "failed connects give no session up: {:?}", rig.seen);
        assert_eq!(pings > 10, sessions.any, "the sessions are watched as before: {:?}", rig.seen);
        let mut connects = [rig.seconds_of("connect"), rig.seconds_of("request")].concat();
        connects.sort_unstable();
        let paused = connects.windows(2).all(|pair| (1..=2).contains(&(pair[1] - pair[0])));
        assert!(connects.len() > 100 && paused, "it is found to be back within a second or two: {connects:?}");
        // A client connects before the monitor does.
        assert!(rig.liveness.record_connect(ConnectOutcome::Opened), "the watch shall look");
        rig.look();
        assert!(rig.is_ready());
        assert_eq!(rig.verdicts().last(), Some(&(200, "recovered")));
        assert!(!rig.liveness.record_connect(ConnectOutcome::Opened), "what is known already wakes no task");
    }
}

#[test]
fn s58_a_connect_that_timed_out_is_cleared_by_a_response_alone() {
    let mut rig = Rig::listening(SOME);
    rig.app = App::Frozen;
    rig.run(2);
    assert!(rig.liveness.record_connect(ConnectOutcome::Failed), "the watch shall look");
    rig.run(100);
    // The sessions show signs of life all the time.
    assert_eq!(rig.verdicts(), [(12, MISSED), (12, "unready: silent")], "{:?}", rig.seen);
    assert!(!rig.is_ready());
    rig.app = App::Answers;
    rig.run(130);
    assert!(rig.is_ready(), "{:?}", rig.seen);

    let mut rig = Rig::listening(SOME);
    rig.run(2);
    rig.liveness.record_connect(ConnectOutcome::Failed);
    rig.run(100);
    assert!(rig.verdicts().is_empty(), "it was one packet: {:?}", rig.seen);
    assert_eq!(rig.seconds_of("request"), [2], "{:?}", rig.seen);
}

#[test]
fn s58_an_app_that_was_given_up_is_ready_when_it_answers_and_not_before() {
    let mut rig = Rig::listening(SOME);
    (rig.ping, rig.app) = ((true, false), App::Frozen);
    rig.run(61);
    rig.sessions = NONE;
    // Bytes that the app had sent before it froze.
    rig.liveness.record_bytes(rig.now);
    rig.run(200);
    assert!(!rig.is_ready());
    assert_eq!(rig.verdicts().last(), Some(&(60, "given up")));
    rig.app = App::Answers;
    rig.run(220);
    assert!(rig.is_ready());
    assert_eq!(rig.verdicts().last().map(|(_, word)| *word), Some("recovered"), "{:?}", rig.seen);
}

#[test]
fn s58_a_shortage_of_the_proxys_own_is_not_the_apps() {
    let mut rig = Rig::listening(NONE);
    rig.app = App::Short;
    rig.run(600);
    assert!(rig.verdicts().is_empty() && rig.is_ready(), "{:?}", rig.seen);
}

#[test]
fn s58_pings_that_cannot_leave_go_to_one_session_after_the_other() {
    let mut rig = Rig::listening(SOME);
    (rig.ping, rig.app) = ((false, false), App::Short);
    rig.run(40);
    assert_eq!(rig.seconds_of("ping"), [15, 25, 35], "{:?}", rig.seen);
}

#[test]
fn s63_at_short_times_an_app_that_answers_every_ping_is_never_missed() {
    // The first values are shorter than the configuration accepts.
    for [interval, timeout, give_up] in [[20, 20, 50], [100, 100, 1000]] {
        let [interval, timeout, give_up] = [interval, timeout, give_up].map(Duration::from_millis);
        let policy = UpstreamPolicy { interval: Some(interval), timeout, give_up };
        let base = crate::any_instant();
        let mut rig = Rig::with(UpstreamLiveness::new(base), policy, base, SOME);
        rig.ping = (true, false);
        let end = base + 60 * SECOND;
        while rig.now < end {
            let before = rig.seen.len();
            rig.look();
            let pinged = rig.seen.len() > before;
            if pinged {
                // The answer takes most of the allowed time.
                let answer = rig.now + timeout * 9 / 10;
                let planned = rig.watch.next_tick(rig.now, &rig.liveness, SOME);
                rig.now = planned.min(answer);
                if rig.now < answer {
                    rig.look();
                }
                rig.now = answer;
                rig.liveness.record_bytes(rig.now);
                rig.look();
            }
            rig.now = rig.watch.next_tick(rig.now, &rig.liveness, SOME);
        }
        assert!(rig.verdicts().is_empty(), "{:?}", rig.verdicts());
        assert!(rig.seen.len() > 200, "{}", rig.seen.len());
    }
}

#[test]
fn s58_an_app_that_is_not_watched_stays_ready_and_its_outages_are_reported() {
    let base = crate::any_instant();
    let policy = UpstreamPolicy { interval: None, ..UpstreamPolicy::default() };
    let mut rig = Rig::with(UpstreamLiveness::new(base), policy, base, SOME);
    rig.run(600);
    assert_eq!(rig.seen, [], "nothing is sent");
    for second in [600, 1200] {
        assert!(rig.liveness.record_connect(ConnectOutcome::Refused), "the watch is to look at once");
        assert!(!rig.liveness.record_connect(ConnectOutcome::Refused), "once an outage");
        rig.run(second + 300);
        assert!(rig.liveness.is_responsive(), "no request tells otherwise");
        assert!(rig.liveness.record_connect(ConnectOutcome::Opened));
        rig.run(second + 600);
    }
    let said: Vec<_> = rig.seen.iter().map(|(_, tick)| &**tick).collect();
    assert_eq!(said, ["unready: refused", "recovered", "unready: refused", "recovered"], "{:?}", rig.seen);
    // Connects that fail and succeed alternately.
    rig.seen.clear();
    for _ in 0..1000 {
        rig.liveness.record_connect(ConnectOutcome::Refused);
        rig.look();
        rig.liveness.record_connect(ConnectOutcome::Opened);
        rig.look();
        rig.now += SECOND / 100;
    }
    assert!(rig.seen.len() <= 12, "ten seconds: {:?}", rig.seen);
}
