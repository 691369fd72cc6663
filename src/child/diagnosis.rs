//! The reason for which the app is not found where it should listen, from what its processes do.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use rustix::process::Signal;

use crate::config::UpstreamTarget;
use crate::platform::process_family::{FamilySnapshot, ListeningSocket};

/// The port of Node's inspector, which is not the app's.
const INSPECTOR: u16 = 9229;

/// The number of processes that have come and gone at which an app is called one that crashes in a loop.
const CRASHES: usize = 3;

/// The reason and the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    pub(super) reason: String,
    pub(super) mend: String,
}

/// The processes of the app that have ended while the app was being started.
#[derive(Debug, Default)]
pub(super) struct Turnover {
    present: BTreeSet<i32>,
    gone: usize,
}

impl Turnover {
    /// Counts the processes that were present the last time and are not now.
    pub(super) fn see(&mut self, family: &FamilySnapshot) {
        self.gone += self.present.iter().filter(|id| !family.contains_key(id)).count();
        self.present = family.keys().copied().collect();
    }
}

/// The processes of the app, and the sockets on which they listen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) family: FamilySnapshot,
    pub(super) listening: Vec<ListeningSocket>,
}

/// A process of the app that is stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoppedProcess {
    id: i32,
    name: Option<String>,
    signal: Option<i32>,
}

impl StoppedProcess {
    /// Returns the one in `family`, the first process before others; where that is not known, the first process if
    /// `first_by` has stopped it.
    pub(super) fn of(family: Option<&FamilySnapshot>, first: i32, first_by: Option<u8>) -> Option<Self> {
        let first_by = first_by.map(i32::from);
        let Some(family) = family else {
            return first_by.map(|signal| Self { id: first, name: None, signal: Some(signal) });
        };
        let stopped = family.iter().filter(|(_, process)| process.is_stopped);
        let (id, process) = stopped.min_by_key(|(id, _)| **id != first)?;
        let signal = first_by.filter(|_| *id == first).or(process.stopped_by);
        Some(Self { id: *id, name: Some(process.name.clone()), signal })
    }

    fn diagnose(&self) -> Diagnosis {
        let name = self.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        let by = self.signal.map(|signal| format!(" by {}", signal_name(signal))).unwrap_or_default();
        let is = |signal: Signal| self.signal == Some(signal.as_raw());
        let mend = if is(Signal::TTOU) {
            "it changes the settings of the terminal, or writes to it after `stty tostop`: run `stty -tostop`, or start it without a terminal".to_owned()
        } else if is(Signal::TTIN) {
            "it reads from the terminal itself (/dev/tty): let it read standard input, or start it without a terminal"
                .to_owned()
        } else {
            format!("continue it with `kill -CONT {}`", self.id)
        };
        Diagnosis { reason: format!("its process {}{name} is stopped{by}", self.id), mend }
    }
}

/// Returns the name of a signal that stops a process, or its number.
fn signal_name(number: i32) -> String {
    let names =
        [(Signal::STOP, "SIGSTOP"), (Signal::TSTP, "SIGTSTP"), (Signal::TTIN, "SIGTTIN"), (Signal::TTOU, "SIGTTOU")];
    let name = names.iter().find(|(signal, _)| signal.as_raw() == number);
    name.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}

/// Returns the reason for which nothing answers at `wanted`; `seen` is `None` where the system does not say what the app
/// does. `flag` names another address for the app.
pub(super) fn diagnose(
    wanted: &UpstreamTarget,
    seen: Option<&Sight>,
    stopped: Option<&StoppedProcess>,
    turnover: &Turnover,
    flag: &str,
) -> Diagnosis {
    let at = |reason: String, mend: String| Diagnosis { reason, mend };
    if let Some(stopped) = stopped {
        return stopped.diagnose();
    }
    let follow = "make it listen on process.env.PORT and process.env.HOST";
    let Some(seen) = seen else {
        let reason = format!("nothing answers at {wanted}; this system does not say where the app listens");
        return at(reason, format!("{follow}, or name its address with {flag}"));
    };
    let tcp = seen.listening.iter().filter_map(|socket| match socket {
        ListeningSocket::Tcp(address) => Some(*address),
        ListeningSocket::Unix(_) => None,
    });
    let tcp: Vec<SocketAddr> = tcp.filter(|address| address.port() != INSPECTOR).collect();
    let wanted_port = match wanted {
        UpstreamTarget::Tcp { port, .. } => Some(*port),
        UpstreamTarget::Unix(_) => None,
    };
    if let Some(address) = tcp.iter().find(|address| Some(address.port()) == wanted_port) {
        let reason = format!("it listens on {address} only, and not on {wanted}");
        return at(
            reason,
            format!("make it listen on process.env.HOST, or name its address with {flag} http://{address}"),
        );
    }
    if let Some(address) = tcp.first() {
        let all: Vec<String> = tcp.iter().map(ToString::to_string).collect();
        let reason = format!("it listens on {} instead of {wanted}", all.join(" and "));
        return at(reason, format!("{follow}, or name its address with {flag} http://{}", reachable(*address)));
    }
    let unix = seen.listening.iter().find_map(|socket| match socket {
        ListeningSocket::Unix(path) => Some(path.display()),
        ListeningSocket::Tcp(_) => None,
    });
    if let Some(path) = unix {
        let reason = format!("it listens on the unix socket {path} instead of {wanted}");
        return at(reason, format!("name the socket with {flag} unix:{path}"));
    }
    if turnover.gone >= CRASHES {
        let reason = format!("its processes end and start again ({} have ended)", turnover.gone);
        return at(reason, "read its output: it may crash in a loop".to_owned());
    }
    at(format!("it runs, but listens nowhere; it should listen on {wanted}"), format!("read its output, and {follow}"))
}

/// Returns an address by which a socket on `address` is reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { address.ip() };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    use crate::platform::process_family::FamilyMember;

    fn diagnosis(listening: &[ListeningSocket]) -> String {
        let seen = Sight { family: family(&[1]), listening: listening.to_vec() };
        text(Some(&seen), None, &Turnover::default())
    }

    fn family(ids: &[i32]) -> FamilySnapshot {
        ids.iter().map(|id| (*id, FamilyMember::default())).collect()
    }

    fn text(seen: Option<&Sight>, stopped: Option<&StoppedProcess>, turnover: &Turnover) -> String {
        let wanted = UpstreamTarget::Tcp { host: "127.0.0.1".into(), port: 4000 };
        let Diagnosis { reason, mend } = diagnose(&wanted, seen, stopped, turnover, "--to");
        format!("{reason}; {mend}")
    }

    fn tcp(address: &str) -> ListeningSocket {
        ListeningSocket::Tcp(address.parse().expect("an address"))
    }

    #[test]
    fn each_place_where_an_app_may_listen_has_its_remedy() {
        assert_snapshot!(diagnosis(&[tcp("0.0.0.0:3000")]), @"it listens on 0.0.0.0:3000 instead of 127.0.0.1:4000; make it listen on process.env.PORT and process.env.HOST, or name its address with --to http://127.0.0.1:3000");
        assert_snapshot!(diagnosis(&[tcp("[::1]:4000")]), @"it listens on [::1]:4000 only, and not on 127.0.0.1:4000; make it listen on process.env.HOST, or name its address with --to http://[::1]:4000");
        assert_snapshot!(diagnosis(&[ListeningSocket::Unix("/run/app.sock".into())]), @"it listens on the unix socket /run/app.sock instead of 127.0.0.1:4000; name the socket with --to unix:/run/app.sock");
        assert_snapshot!(diagnosis(&[tcp("127.0.0.1:9229")]), @"it runs, but listens nowhere; it should listen on 127.0.0.1:4000; read its output, and make it listen on process.env.PORT and process.env.HOST");
        assert_snapshot!(text(None, None, &Turnover::default()), @"nothing answers at 127.0.0.1:4000; this system does not say where the app listens; make it listen on process.env.PORT and process.env.HOST, or name its address with --to");
    }

    #[test]
    fn processes_that_come_and_go_are_a_crash_in_a_loop() {
        let mut turnover = Turnover::default();
        for child in [2, 3, 4, 5] {
            turnover.see(&family(&[1, child]));
        }
        let seen = Sight { family: family(&[1, 5]), listening: Vec::new() };
        assert_snapshot!(text(Some(&seen), None, &turnover), @"its processes end and start again (3 have ended); read its output: it may crash in a loop");
    }
    #[test]
    fn a_stopped_process_is_named_with_its_signal() {
        let member = |name: &str, signal: Option<i32>| FamilyMember {
            name: name.to_owned(),
            is_stopped: name != "runs",
            stopped_by: signal,
            ..FamilyMember::default()
        };
        let shown = |family: Option<&FamilySnapshot>, first_by| {
            StoppedProcess::of(family, 7, first_by).map(|stopped| text(None, Some(&stopped), &Turnover::default()))
        };
        let family = [(3, member("sh", Some(19))), (7, member("node", None))].into();
        assert_snapshot!(shown(Some(&family), Some(22)).expect("stopped"), @"its process 7 (node) is stopped by SIGTTOU; it changes the settings of the terminal, or writes to it after `stty tostop`: run `stty -tostop`, or start it without a terminal");
        let family = [(3, member("sh", Some(19))), (7, member("runs", None))].into();
        assert_snapshot!(shown(Some(&family), None).expect("stopped"), @"its process 3 (sh) is stopped by SIGSTOP; continue it with `kill -CONT 3`");
        assert_snapshot!(shown(None, Some(21)).expect("stopped"), @"its process 7 is stopped by SIGTTIN; it reads from the terminal itself (/dev/tty): let it read standard input, or start it without a terminal");
        assert_eq!(shown(Some(&[(7, member("runs", None))].into()), None), None);
    }
}
