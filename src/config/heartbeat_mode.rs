//! `mode` and `profile`: the heartbeat that a table selects, laid over the one that it inherits.
//!
//! A profile alone implies its mode, and a mode alone applies to the inherited profile. A pair that does not go
//! together is refused at its place.

use std::sync::Arc;

use super::codec::{Codec, OneOf, words_schema};
use super::custom_profile::{self, Custom};
use super::listing::ListedTable;
use super::parse::{Given, Problem, Read, Words, enumerate, none_of};
use super::reader::{KeyValue, Table};
use super::schema::{Visitor, decode};
use crate::heartbeat::{Builtin, Heartbeat, Mode, Policy, Profile, Role};

/// The heartbeat that a table selects.
#[derive(Clone, Debug)]
pub(super) enum HeartbeatMode {
    /// The pings of RFC 6455.
    Protocol,
    /// No heartbeat.
    Off,
    /// The heartbeat that each upgrade shows.
    Auto,
    /// The heartbeat of an application, with the proxy in one of its roles.
    Profile(ProfileSource, Mode),
    /// A refused value; nothing that builds on it is judged.
    Refused,
}

/// The source of an application's heartbeat.
#[derive(Clone, Debug)]
pub(super) enum ProfileSource {
    Builtin(Builtin),
    Custom(Arc<Custom>),
}

/// The words of `mode`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Protocol,
    Off,
    Role(Role),
}

/// The values of `profile`.
#[derive(Clone, Debug)]
enum Named {
    Auto,
    One(ProfileSource),
}

const AUTO: &str = "auto";

const MODES: Words<Word> = &[
    ("protocol", Word::Protocol),
    ("app", Word::Role(Role::App)),
    ("answer", Word::Role(Role::Answer)),
    ("passive", Word::Role(Role::Passive)),
    ("off", Word::Off),
];

/// Other names of built-in profiles.
const ALIASES: Words<Builtin> = &[
    ("engineio", Builtin::EngineIo),
    ("graphql", Builtin::GraphqlTransportWs),
    ("rails", Builtin::ActionCable),
    ("socket.io", Builtin::EngineIo),
    ("socketio", Builtin::EngineIo),
    ("subscriptions-transport-ws", Builtin::GraphqlWs),
];

/// Visits `mode` and `profile` of a heartbeat that has been read; [`read_mode`] reads them.
pub(super) fn visit_mode(v: &mut Visitor<'_>, heartbeat: &Heartbeat) {
    match v {
        Visitor::List(table) => list(table, heartbeat),
        Visitor::Describe(table) => {
            let mode = OneOf(MODES);
            table.key("mode", mode.schema(), Some(&mode.encode(&Word::Protocol)));
            let names = words_schema([AUTO].into_iter().chain(Builtin::ALL.into_iter().map(Builtin::name)));
            table.table_or("profile", &names, None, custom_profile::describe);
            table.describe("profile", "the application's heartbeat: \"auto\", the name of a built-in one, or a table");
        }
        Visitor::Read(_) | Visitor::Record(_) | Visitor::Restore(_) => {}
    }
}

/// Lists mode and profile.
fn list(table: &mut ListedTable<'_>, heartbeat: &Heartbeat) {
    let mode = match heartbeat {
        Heartbeat::Auto(_) => return table.set("profile", AUTO),
        Heartbeat::Fixed(policy) => &policy.mode,
    };
    table.set_by("mode", mode.as_str(), &["mode", "profile"]);
    let mut written = table.homes.iter().map(|home| home.key("profile"));
    let written = written.find(|path| table.layers.value(path).is_some());
    match (mode.profile(), written) {
        (Some(profile), Some(written)) if profile.name == Profile::CUSTOM => {
            let prefix = format!("{}profile.", table.prefix);
            let custom = ListedTable { layers: table.layers, prefix, homes: vec![written], lines: table.lines };
            custom_profile::list(custom, profile);
        }
        (Some(profile), _) => table.set("profile", profile.name),
        (None, None) => table.unset("profile"),
        // The profile is switched off.
        (None, Some(_)) => {}
    }
}

/// Reads the heartbeat that the table `t` asks for, over `base`.
pub(super) fn read_mode(t: &Table<'_>, base: &HeartbeatMode) -> HeartbeatMode {
    let mode = t.entry("mode", decode(&OneOf(MODES)));
    let asked = match (mode, profile(t, mode)) {
        (KeyValue::Refused, _) | (_, KeyValue::Refused) => Ok(HeartbeatMode::Refused),
        (KeyValue::Unset, KeyValue::Unset) => Ok(base.clone()),
        (KeyValue::Unset, KeyValue::Is(Named::Auto)) => Ok(HeartbeatMode::Auto),
        (KeyValue::Unset, KeyValue::Is(Named::One(source))) => source.mode_in(source.role()),
        (KeyValue::Is(word), KeyValue::Unset) => word.over(base),
        (KeyValue::Is(word), KeyValue::Is(named)) => word.with_profile(&named),
    };
    asked.unwrap_or_else(|problem| {
        t.refuse(&["mode", "profile"], problem);
        HeartbeatMode::Refused
    })
}

impl HeartbeatMode {
    /// Returns the heartbeat with the settings of `policy`.
    pub(super) fn heartbeat(&self, policy: &Policy) -> Heartbeat {
        let mode = match self {
            Self::Auto => return Heartbeat::auto(policy),
            Self::Profile(_, mode) => mode.clone(),
            Self::Off => Mode::Off,
            Self::Protocol | Self::Refused => Mode::Protocol,
        };
        Policy { mode, ..policy.clone() }.into()
    }
}

impl Word {
    /// Applies the mode to the profile in `base`.
    fn over(self, base: &HeartbeatMode) -> Result<HeartbeatMode, Problem> {
        let role = match self {
            Self::Protocol => return Ok(HeartbeatMode::Protocol),
            Self::Off => return Ok(HeartbeatMode::Off),
            Self::Role(role) => role,
        };
        match base {
            HeartbeatMode::Profile(source, _) => source.mode_in(role).map_err(|problem| {
                let what = format!("{} of [heartbeat]", problem.what);
                Problem { what, ..problem }
            }),
            HeartbeatMode::Auto => Err(self.with_auto(" of [heartbeat]")),
            HeartbeatMode::Refused => Ok(HeartbeatMode::Refused),
            HeartbeatMode::Protocol | HeartbeatMode::Off => {
                let problem = Problem::new(format!("cannot be \"{self}\" without a profile"));
                let fit = Builtin::ALL.into_iter().filter(|builtin| builtin.roles().contains(&role));
                let fit = enumerate(fit.map(Builtin::name));
                Err(problem.with_help(format!("set `profile` beside it: {fit}, or {{ send = …, expect = … }}")))
            }
        }
    }

    /// Applies the mode to a profile in the same table.
    fn with_profile(self, named: &Named) -> Result<HeartbeatMode, Problem> {
        match (self, named) {
            // A variable may switch off a heartbeat that the file defines.
            (Self::Off, _) => Ok(HeartbeatMode::Off),
            (Self::Protocol, _) => {
                let problem = Problem::new(format!("cannot be \"{self}\" beside a profile: they exclude each other"));
                Err(problem.with_help(format!("leave out `mode` to use the profile, or `profile` for \"{self}\"")))
            }
            (Self::Role(_), Named::Auto) => Err(self.with_auto("")),
            (Self::Role(role), Named::One(source)) => source.mode_in(role),
        }
    }

    fn with_auto(self, whose: &str) -> Problem {
        let what =
            format!("cannot be \"{self}\" with profile \"{AUTO}\"{whose}, which selects the mode at each upgrade");
        Problem::new(what).with_help(format!("leave out `mode`, or name a `profile` other than \"{AUTO}\""))
    }
}

impl std::fmt::Display for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Protocol => "protocol",
            Self::Off => "off",
            Self::Role(role) => role.as_str(),
        })
    }
}

impl ProfileSource {
    /// Returns the role that it implies.
    fn role(&self) -> Role {
        match self {
            Self::Builtin(builtin) => builtin.roles()[0],
            Self::Custom(_) => Role::App,
        }
    }

    /// Returns its heartbeat with the proxy in `role`.
    fn mode_in(&self, role: Role) -> Result<HeartbeatMode, Problem> {
        let mode = match self {
            Self::Custom(custom) => role.with(Arc::new(custom.profile(role)?)),
            Self::Builtin(builtin) if builtin.roles().contains(&role) => builtin.mode(role),
            Self::Builtin(builtin) => {
                let name = builtin.name();
                let problem = Problem::new(format!("cannot be \"{}\" with profile \"{name}\"", role.as_str()));
                let roles = enumerate(builtin.roles().iter().map(|role| role.as_str()));
                return Err(problem.with_help(format!("{name} is for {roles}; or name another `profile` here")));
            }
        };
        Ok(HeartbeatMode::Profile(self.clone(), mode))
    }
}

/// Reads `profile`; `mode` decides which keys a profile in a table must have.
fn profile(t: &Table<'_>, mode: KeyValue<Word>) -> KeyValue<Named> {
    let role = match mode {
        KeyValue::Unset => Some(Role::App),
        KeyValue::Is(Word::Role(role)) => Some(role),
        KeyValue::Is(Word::Protocol | Word::Off) | KeyValue::Refused => None,
    };
    match t.table_or("profile", name) {
        Ok(table) => match custom_profile::read(&table, role) {
            Some(custom) => KeyValue::Is(Named::One(ProfileSource::Custom(Arc::new(custom)))),
            None => KeyValue::Refused,
        },
        Err(named) => named,
    }
}

/// Reads `"auto"`, or the name of a built-in profile.
fn name(given: &Given<'_>) -> Read<Named> {
    let text = given.text();
    let known = |name: &str| text.is_some_and(|text| text.eq_ignore_ascii_case(name));
    if text == Some(AUTO) {
        return Ok(Named::Auto);
    }
    if let Some(builtin) = Builtin::ALL.into_iter().find(|builtin| text == Some(builtin.name())) {
        return Ok(Named::One(ProfileSource::Builtin(builtin)));
    }
    let names = [AUTO].into_iter().chain(Builtin::ALL.into_iter().map(Builtin::name));
    let problem = none_of("must be a table, or", text, names);
    Err(match ALIASES.iter().find(|(alias, _)| known(alias)) {
        Some((_, builtin)) => problem.with_help(format!("did you mean \"{}\"?", builtin.name())),
        None => problem,
    })
}
