//! Which heartbeat a session gets: the one of its route, or the one that its upgrade asks for.

use std::sync::Arc;

use super::{Builtin, Mode, Policy, Role, Signs, recognise};

/// The heartbeat of a route.
#[derive(Clone, Debug, PartialEq)]
pub enum Heartbeat {
    /// The same for every session.
    Fixed(Arc<Policy>),
    /// The one that its upgrade shows, session by session.
    Auto(Arc<Auto>),
}

/// The heartbeats that a session may turn out to speak.
#[derive(Clone, Debug, PartialEq)]
pub struct Auto {
    fallback: Arc<Policy>,
    /// In the order of [`Builtin::ALL`].
    spoken: [Arc<Policy>; Builtin::ALL.len()],
}

/// The heartbeat of one session.
#[derive(Clone, Debug, PartialEq)]
pub struct Picked {
    /// What is asked of it.
    pub policy: Arc<Policy>,
    /// What showed it, where the upgrade was asked.
    pub why: Option<&'static str>,
}

impl Heartbeat {
    /// The heartbeat that each upgrade shows, with the settings of `base`; protocol pings where it shows none.
    pub fn auto(base: &Policy) -> Self {
        let with = |mode| Arc::new(Policy { mode, ..base.clone() });
        let spoken = Builtin::ALL.map(|builtin| with(builtin.mode(builtin.roles()[0])));
        Self::Auto(Arc::new(Auto { fallback: with(Mode::Protocol), spoken }))
    }

    /// The settings that all its sessions share, and the mode of those that show nothing.
    pub fn policy(&self) -> &Arc<Policy> {
        match self {
            Self::Fixed(policy) => policy,
            Self::Auto(auto) => &auto.fallback,
        }
    }

    /// The heartbeat of a session whose upgrade shows `signs`.
    pub fn pick(&self, signs: &Signs<'_>) -> Picked {
        match self {
            Self::Fixed(policy) => Picked { policy: Arc::clone(policy), why: None },
            Self::Auto(auto) => match recognise(signs) {
                Some((builtin, why)) => Picked { policy: Arc::clone(auto.policy(builtin)), why: Some(why) },
                None => Picked { policy: Arc::clone(&auto.fallback), why: Some("nothing recognised") },
            },
        }
    }
}

impl From<Policy> for Heartbeat {
    fn from(policy: Policy) -> Self {
        Self::Fixed(Arc::new(policy))
    }
}

impl Auto {
    /// The heartbeat of the sessions that show `builtin`.
    pub fn policy(&self, builtin: Builtin) -> &Arc<Policy> {
        &self.spoken[builtin as usize]
    }
}

impl Builtin {
    /// The mode with this profile and the proxy in `role`.
    pub fn mode(self, role: Role) -> Mode {
        role.with(Arc::new(self.profile(role)))
    }
}

impl Role {
    /// The mode in which the proxy has this role in the heartbeat `profile`.
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
        let picked = heartbeat.pick(&signs);
        assert_eq!(picked.policy.mode.as_str(), "app");
        assert_eq!(picked.why, Some("subprotocol graphql-transport-ws"));
        let picked = heartbeat.pick(&Signs { subprotocols: &[], path: "/chat", query: "" });
        assert_eq!(picked.policy.mode, Mode::Protocol);
        assert_eq!(picked.why, Some("nothing recognised"));
    }
}
