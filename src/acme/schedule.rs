//! The time of the next order: pure functions of the certificate at hand, the authority's wish and earlier failures.

use std::time::{Duration, SystemTime};

/// The share of a lifetime after which a certificate is renewed.
const RENEWED_AFTER: f64 = 2.0 / 3.0;
/// The share of a lifetime over which renewals are spread, from [`RENEWED_AFTER`] on.
const SPREAD: f64 = 1.0 / 30.0;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// The longest pause while there is no certificate that clients accept.
const LONGEST_PAUSE_WITHOUT: Duration = Duration::from_secs(60 * 60);
/// The longest wait that an authority may ask for with `Retry-After`; more is taken for a mistake.
pub(super) const LONGEST_WISH: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificate at hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Held {
    /// The start of its validity period.
    pub(super) not_before: SystemTime,
    /// The end of its validity period.
    pub(super) not_after: SystemTime,
    /// Set if it is the one for the configured names, and for every one of them.
    pub(super) is_for_all: bool,
    /// A number from 0 to 1 that belongs to it; spreads the renewals of many certificates, and stays after a restart.
    pub(super) draw: f64,
}

/// The time in which the authority wants a certificate to be renewed (ARI, RFC 9773 §4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RenewalWindow {
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// The reason of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no certificate.
    Missing,
    /// The certificate is one for other names.
    Names,
    /// The certificate has expired.
    Expired,
    /// The certificate is due for renewal.
    Renewal,
}

impl Reason {
    /// Returns the value in log lines.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Names => "names",
            Self::Expired => "expired",
            Self::Renewal => "renewal",
        }
    }
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An order now.
    Order(Reason),
    /// None before this time.
    Wait(SystemTime),
}

/// A failed attempt, as far as it decides about the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The number of failed attempts in a row, at least 1.
    pub(super) count: u32,
    /// Set if the authority answered: its limits count such attempts.
    pub(super) is_counted: bool,
    /// The wait that the authority asked for.
    pub(super) retry_after: Option<Duration>,
}

/// Returns the step at `now`. After a failure no attempt is made before `retry_at`.
pub(super) fn step(
    now: SystemTime,
    held: Option<&Held>,
    window: Option<RenewalWindow>,
    retry_at: Option<SystemTime>,
) -> Step {
    let reason = match held {
        None => Some(Reason::Missing),
        Some(held) if held.not_after <= now => Some(Reason::Expired),
        Some(held) if !held.is_for_all => Some(Reason::Names),
        Some(held) if renewal(held, window) <= now => Some(Reason::Renewal),
        Some(_) => None,
    };
    match (reason, retry_at, held) {
        (Some(_), Some(at), _) if at > now => Step::Wait(at),
        (Some(reason), ..) => Step::Order(reason),
        (None, _, Some(held)) => Step::Wait(renewal(held, window)),
        // Without a certificate there is a reason.
        (None, _, None) => Step::Order(Reason::Missing),
    }
}

/// Returns the time from which the certificate is renewed: in the authority's window, or two thirds through its lifetime.
pub(super) fn renewal(held: &Held, window: Option<RenewalWindow>) -> SystemTime {
    let draw = held.draw.clamp(0.0, 1.0);
    match window {
        // A window that begins after the certificate's end helps no one.
        Some(RenewalWindow { start, end }) if start < end && start < held.not_after => {
            let width = end.duration_since(start).unwrap_or_default();
            (start + width.mul_f64(draw)).min(held.not_after)
        }
        _ => {
            let lifetime = held.not_after.duration_since(held.not_before).unwrap_or_default();
            held.not_before + lifetime.mul_f64(RENEWED_AFTER + SPREAD * draw)
        }
    }
}

/// Returns the pause after a failed attempt, `is_valid` if clients accept the certificate at hand. It doubles with every
/// failure and differs by up to a quarter with `draw`, a random number from 0 to 1. It is never shorter than the
/// authority asks for, up to a day.
pub(super) fn pause(failure: Failure, is_valid: bool, draw: f64) -> Duration {
    let first = Duration::from_secs(if failure.is_counted { 60 } else { 5 });
    let longest = if is_valid { LONGEST_PAUSE } else { LONGEST_PAUSE_WITHOUT };
    let doubled = first.saturating_mul(1 << failure.count.saturating_sub(1).min(20)).min(longest);
    let spread = doubled.mul_f64(0.75 + draw.clamp(0.0, 1.0) / 2.0);
    spread.max(failure.retry_after.unwrap_or_default().min(LONGEST_WISH))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn day(day: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * (20_000 + day)
    }

    /// Returns a certificate of ninety days.
    fn held(draw: f64) -> Held {
        Held { not_before: day(0), not_after: day(90), is_for_all: true, draw }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_lifetime() {
        assert_eq!(renewal(&held(0.0), None), day(60));
        assert_eq!(renewal(&held(1.0), None), day(63));
        let second = Duration::from_secs(1);
        assert_eq!(step(day(60) - second, Some(&held(0.0)), None, None), Step::Wait(day(60)));
        assert_eq!(step(day(60), Some(&held(0.0)), None, None), Step::Order(Reason::Renewal));
        // One of six days, as Let's Encrypt issues them too.
        let short = Held { not_after: day(6), ..held(0.0) };
        assert_eq!(renewal(&short, None), day(4));
    }

    #[test]
    fn the_window_of_the_authority_comes_before_the_lifetime() {
        let window = |start, end| Some(RenewalWindow { start: day(start), end: day(end) });
        assert_eq!(renewal(&held(0.0), window(10, 20)), day(10));
        assert_eq!(renewal(&held(0.5), window(10, 20)), day(15));
        assert_eq!(renewal(&held(1.0), window(80, 120)), day(90), "never after its end");
        assert_eq!(
            step(day(12), Some(&held(0.1)), window(10, 20), None),
            Step::Order(Reason::Renewal),
            "a revoked one"
        );
        for nonsense in [window(20, 10), window(10, 10), window(95, 99)] {
            assert_eq!(renewal(&held(0.0), nonsense), day(60), "{nonsense:?}");
        }
    }

    #[test]
    fn there_is_a_reason_without_a_usable_certificate() {
        assert_eq!(step(day(1), None, None, None), Step::Order(Reason::Missing));
        assert_eq!(step(day(90), Some(&held(0.0)), None, None), Step::Order(Reason::Expired));
        let other = Held { is_for_all: false, ..held(0.0) };
        assert_eq!(step(day(1), Some(&other), None, None), Step::Order(Reason::Names));
        let later = Some(day(2));
        for held in [None, Some(&other)] {
            assert_eq!(step(day(1), held, None, later), Step::Wait(day(2)), "{held:?}");
            assert!(matches!(step(day(2), held, None, later), Step::Order(_)), "{held:?}");
        }
        assert_eq!(step(day(1), Some(&held(0.0)), None, later), Step::Wait(day(60)), "nothing is due");
    }

    #[test]
    fn pauses_double_and_have_an_upper_bound() {
        let of = |count, is_counted| Failure { count, is_counted, retry_after: None };
        let seconds = |count, is_counted, is_valid| pause(of(count, is_counted), is_valid, 0.5).as_secs();
        assert_eq!([1, 2, 3, 4].map(|count| seconds(count, false, false)), [5, 10, 20, 40]);
        assert_eq!([1, 2, 3, 4].map(|count| seconds(count, true, true)), [60, 120, 240, 480]);
        assert_eq!((seconds(99, true, false), seconds(u32::MAX, true, true)), (3_600, 21_600));
        let failure = of(1, true);
        assert_eq!(
            (pause(failure, true, 0.0), pause(failure, true, 1.0)),
            (Duration::from_secs(45), Duration::from_secs(75))
        );
    }

    #[test]
    fn the_wait_that_the_authority_asks_for_is_kept_up_to_a_day() {
        let asked = |wish| pause(Failure { count: 1, is_counted: true, retry_after: Some(wish) }, true, 0.5);
        assert_eq!(asked(Duration::from_secs(1)), Duration::from_secs(60));
        assert_eq!(asked(Duration::from_secs(7_200)), Duration::from_secs(7_200));
        assert_eq!(asked(DAY * 3_650), DAY);
    }
}
