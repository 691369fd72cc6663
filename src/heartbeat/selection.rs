//! Selection of a session's heartbeat: the one of its route, or the one detected from its upgrade.

use std::sync::Arc;

use super::{Builtin, Liveness, Mode, Policy, ProofOfLife, Role, Signs, detect};
use crate::ws::Coding;

/// The heartbeat of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Heartbeat {
    /// The same policy for every session.
    Fixed(Arc<Policy>),
    /// A policy per session, detected from its upgrade.
    Auto(Arc<Auto>),
}

/// The policies among which detection selects.
#[derive(Clone, Debug, PartialEq)]
pub struct Auto {
    fallback: Arc<Policy>,
    /// One policy per application protocol, in the order of [`Builtin::ALL`].
    by_profile: [Arc<Policy>; Builtin::ALL.len()],
}

/// The heartbeat selected for one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Selected {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The sign it was detected by; `None` on routes without detection.
    pub why: Option<&'static str>,
    /// The restriction that applies because the session's messages cannot be read.
    pub degraded: Option<&'static str>,
}

impl Heartbeat {
    /// Creates a heartbeat detected from each upgrade, with the settings of `base`; protocol pings if nothing is
    /// detected.
    pub fn auto(base: &Policy) -> Self {
        let with = |mode| Arc::new(Policy { mode, ..base.clone() });
        let spoken = Builtin::ALL.map(|builtin| with(builtin.mode(builtin.roles()[0])));
        Self::Auto(Arc::new(Auto { fallback: with(Mode::Protocol), by_profile: spoken }))
    }

    /// Returns the settings shared by all sessions, with the mode of sessions without a detected heartbeat.
    pub fn policy(&self) -> &Arc<Policy> {
        match self {
            Self::Fixed(policy) => policy,
            Self::Auto(auto) => &auto.fallback,
        }
    }

    /// Returns whether messages may be removed from a session whose upgrade has `signs` and whose app has yet to select
    /// a subprotocol. Such a session must not be compressed.
    pub fn may_swallow(&self, signs: &Signs<'_>) -> bool {
        let swallows = |subprotocols| self.policy_for(&Signs { subprotocols, ..*signs }).0.mode.swallows();
        swallows(&[]) || signs.subprotocols.chunks(1).any(swallows)
    }

    /// Selects the heartbeat of a session whose upgrade has `signs` and whose payloads are under `coding`.
    pub fn select(&self, signs: &Signs<'_>, coding: Coding) -> Selected {
        let (policy, why) = self.policy_for(signs);
        match policy.readable(coding) {
            None => Selected { policy: Arc::clone(policy), why, degraded: None },
            Some((policy, degraded)) => Selected { policy: Arc::new(policy), why, degraded: Some(degraded) },
        }
    }

    fn policy_for(&self, signs: &Signs<'_>) -> (&Arc<Policy>, Option<&'static str>) {
        match self {
            Self::Fixed(policy) => (policy, None),
            Self::Auto(auto) => match detect(signs) {
                Some((builtin, why)) => (auto.policy(builtin), Some(why)),
                None => (&auto.fallback, Some("nothing recognised")),
            },
        }
    }
}

impl Policy {
    /// Returns the policy to use instead if `coding` hides the messages that this policy must read, with a description
    /// of the restriction; `None` if nothing is hidden.
    fn readable(&self, coding: Coding) -> Option<(Self, &'static str)> {
        let Mode::Passive(profile) = &self.mode else { return None };
        let refers_back = match coding {
            Coding::Plain => return None,
            Coding::Deflate { server_takeover, .. } => server_takeover,
            Coding::Unknown => true,
        };
        let unknown = coding == Coding::Unknown;
        // Two bytes are too short for a back-reference in the compressed data, so such a message can always be read.
        let unreadable = |asks: &super::Pattern| unknown || refers_back && asks.longest() > 2;
        if profile.proof == ProofOfLife::Answers && profile.asks.as_ref().is_some_and(unreadable) {
            return Some((Self { mode: Mode::Protocol, ..self.clone() }, "compressed: the client is pinged"));
        }
        if unknown && self.liveness == Liveness::PongOnly {
            let counts = Self { liveness: Liveness::AnyBytes, ..self.clone() };
            return Some((counts, "unknown extension: any message counts"));
        }
        None
    }
}

impl From<Policy> for Heartbeat {
    fn from(policy: Policy) -> Self {
        Self::Fixed(Arc::new(policy))
    }
}

impl Auto {
    /// Returns the policy of sessions in which `builtin` is detected.
    pub fn policy(&self, builtin: Builtin) -> &Arc<Policy> {
        &self.by_profile[builtin as usize]
    }
}

impl Builtin {
    /// Returns the mode with this profile and the proxy in `role`.
    pub fn mode(self, role: Role) -> Mode {
        role.with(Arc::new(self.profile(role)))
    }
}

impl Role {
    /// Returns the mode in which the proxy has this role in the heartbeat `profile`.
    pub fn with(self, profile: Arc<super::Profile>) -> Mode {
        match self {
            Self::App => Mode::App(profile),
            Self::Answer => Mode::Answer(profile),
            Self::Passive => Mode::Passive(profile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_picks_what_the_upgrade_shows_and_pings_otherwise() {
        let heartbeat = Heartbeat::auto(&Policy { max_missed: 3, ..Policy::default() });
        for builtin in Builtin::ALL {
            let Heartbeat::Auto(auto) = &heartbeat else { unreachable!() };
            let profile = auto.policy(builtin).mode.profile().map(|profile| profile.name);
            assert_eq!(profile, Some(builtin.name()));
            assert_eq!(auto.policy(builtin).max_missed, 3);
        }
        let signs = Signs { subprotocols: &["graphql-transport-ws"], path: "/", query: "" };
        let picked = heartbeat.select(&signs, Coding::Plain);
        assert_eq!(picked.policy.mode.as_str(), "app");
        assert_eq!(picked.why, Some("subprotocol graphql-transport-ws"));
        let picked = heartbeat.select(&Signs { subprotocols: &[], path: "/chat", query: "" }, Coding::Plain);
        assert_eq!(picked.policy.mode, Mode::Protocol);
        assert_eq!(picked.why, Some("nothing recognised"));
    }
    #[test]
    fn whoever_may_be_taken_messages_out_of_is_not_compressed() {
        let heartbeat = Heartbeat::auto(&Policy::default());
        let may = |subprotocols: &[&str]| heartbeat.may_swallow(&Signs { subprotocols, path: "/", query: "" });
        assert!(may(&["graphql-transport-ws"]));
        assert!(may(&["graphql-ws", "graphql-transport-ws"]), "the app may choose either");
        assert!(!may(&["graphql-ws"]));
        assert!(!may(&[]));
        let app = Policy { mode: Builtin::ExpressText.mode(Role::App), ..Policy::default() };
        assert!(Heartbeat::from(app).may_swallow(&Signs { subprotocols: &[], path: "/", query: "" }));
    }

    #[test]
    fn what_cannot_be_read_is_done_without() {
        let with = |mode, coding| {
            let heartbeat = Heartbeat::from(Policy { mode, ..Policy::default() });
            let picked = heartbeat.select(&Signs { subprotocols: &[], path: "/", query: "" }, coding);
            (picked.policy.mode.as_str(), picked.degraded.is_some())
        };
        let takeover = Coding::Deflate { client_takeover: true, server_takeover: true };
        let none = Coding::Deflate { client_takeover: true, server_takeover: false };
        let engine_io = || Builtin::EngineIo.mode(Role::Passive);
        assert_eq!(with(engine_io(), takeover), ("passive", false), "one byte refers to nothing");
        assert_eq!(with(engine_io(), Coding::Unknown), ("protocol", true));
        let custom = || {
            let asks = super::super::Pattern::new(crate::ws::Opcode::TEXT, b"alive?", super::super::Matching::Exact);
            let engine_io = Builtin::EngineIo.profile(Role::Passive);
            Mode::Passive(Arc::new(super::super::Profile { asks: asks.ok(), ..engine_io }))
        };
        assert_eq!(with(custom(), takeover), ("protocol", true));
        assert_eq!(with(custom(), none), ("passive", false));
        assert_eq!(with(Mode::Protocol, takeover), ("protocol", false));
    }
}
