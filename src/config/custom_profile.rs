//! A heartbeat profile that the configuration defines.

use super::codec::{self, Codec, OneOf, Scalar};
use super::json_schema::SchemaTable;
use super::listing::ListedTable;
use super::parse::{Given, Problem, Read, Words, size};
use super::reader::{Refused, Table};
use super::schema::Visitor;
use crate::heartbeat::{
    DEFAULT_MAX_LEN, DEFAULT_WINDOW, Matching, MessageTemplate, Pattern, PatternError, Profile, ProofOfLife, Role,
};
use crate::ws::Opcode;

/// The heartbeat of an application, for any role of the proxy.
#[derive(Clone, Debug)]
pub(super) struct Custom {
    opcode: Opcode,
    matching: Matching,
    /// The bytes of the message to the client.
    send: Option<Box<[u8]>>,
    /// The message from the client.
    expect: Pattern,
    start_after: Option<Pattern>,
    max_len: usize,
}

/// A text that messages are compared with.
#[derive(Debug)]
struct MessageRule {
    pattern: Pattern,
    len: usize,
}

const OPCODES: Words<Opcode> = &[("text", Opcode::TEXT), ("binary", Opcode::BINARY)];
const MATCHES: Words<Matching> = &[("exact", Matching::Exact), ("prefix", Matching::Prefix), ("json", Matching::Json)];
/// Begins hexadecimal digits in a binary profile.
const HEX: &str = "0x";
/// The largest `max_len`: the bytes of a message that are held while it arrives.
const MOST: usize = 4096;
/// The same, as a size.
const MOST_BYTES: u64 = 4096;

/// The longest heartbeat message.
const MAX_LEN: Scalar<usize> = Scalar {
    decode: max_len,
    encode: |len| codec::number(*len).into(),
    schema: || codec::size_schema(1, Some(MOST_BYTES)),
};

/// Visits the keys with defaults, which decide how the texts of the others are read.
fn visit_form(v: &mut Visitor<'_>, opcode: &mut Opcode, matching: &mut Matching, max_len: &mut usize) {
    v.key("opcode", &OneOf(OPCODES), opcode);
    v.key("match", &OneOf(MATCHES), matching);
    v.key("max_len", &MAX_LEN, max_len);
}

/// Lists the profile of the table as it is written: the settings hold it ready for use.
pub(super) fn list(mut table: ListedTable<'_>, profile: &Profile) {
    let home = table.homes[0].clone();
    for (key, usual) in [
        ("send", None),
        ("expect", None),
        ("opcode", Some(OPCODES[0].0)),
        ("match", Some(MATCHES[0].0)),
        ("start_after", None),
    ] {
        let text = table.layers.text(&home.key(key)).or(usual);
        table.maybe(key, text);
    }
    table.set("max_len", MAX_LEN.encode(&profile.max_len));
}

/// Describes the table.
pub(super) fn describe(table: SchemaTable<'_>) {
    let mut v = Visitor::Describe(table);
    let (mut opcode, mut matching, mut longest) = (Opcode::TEXT, Matching::default(), DEFAULT_MAX_LEN);
    visit_form(&mut v, &mut opcode, &mut matching, &mut longest);
    v.describe("opcode", "the type of the messages");
    v.describe("match", "how messages are compared with the texts");
    v.describe("max_len", "bytes of the longest message that is compared");
    for (key, what) in [
        ("send", "the message to the client; in \"passive\" the app's own probe"),
        ("expect", "the message from the client"),
        ("start_after", "a message of either side; until it has passed, the session is pinged as in \"protocol\""),
    ] {
        if let Visitor::Describe(table) = &mut v {
            table.key(key, codec::text_schema(), None);
        }
        v.describe(key, what);
    }
}

/// Reads the profile in the table `t`, which the proxy speaks in `role`; without a role no key is required.
/// `None` where a key was refused.
pub(super) fn read(t: &Table<'_>, role: Option<Role>) -> Option<Custom> {
    let (mut opcode, mut matching, mut max_len) = (Opcode::TEXT, Matching::default(), DEFAULT_MAX_LEN);
    visit_form(&mut Visitor::Read(t.clone()), &mut opcode, &mut matching, &mut max_len);
    let matched = |given: &Given<'_>| message_rule(given, opcode, matching);
    let outgoing = |given: &Given<'_>| match role {
        // The app asks with the same message, which must be recognised.
        Some(Role::App | Role::Passive) => matched(given).and_then(|_| message(given, opcode)),
        Some(Role::Answer) | None => message(given, opcode),
    };
    let needed = match role {
        Some(Role::App) => Some("the proxy's probe of the client"),
        Some(Role::Answer) => Some("the proxy's answer to the client"),
        Some(Role::Passive) | None => None,
    };
    let send = match needed {
        Some(what) => t.required("send", outgoing, what).map(Some).ok_or(Refused),
        None => t.entry("send", outgoing).optional(),
    };
    let expect = t.required("expect", matched, "the client's heartbeat");
    let start_after = t.entry("start_after", matched).optional();

    let lens = [
        ("send", send.as_ref().ok().and_then(|send| Some(send.as_ref()?.len()))),
        ("expect", expect.as_ref().map(|expect| expect.len)),
        ("start_after", start_after.as_ref().ok().and_then(|start| Some(start.as_ref()?.len))),
    ];
    let too_long = |(key, len): &(&'static str, Option<usize>)| Some((*key, len.filter(|len| *len > max_len)?));
    for (key, len) in lens.iter().filter_map(too_long) {
        let problem = Problem::new(format!("is longer than `max_len`: it has {len} bytes, max_len is {max_len}"));
        let most = format!("no heartbeat may be longer than {MOST} bytes");
        t.refuse(&[key, "max_len"], problem.with_help(if len > MOST { most } else { format!("set max_len = {len}") }));
    }
    let start_after = start_after.ok()?.map(|start| start.pattern);
    Some(Custom { opcode, matching, send: send.ok()?, expect: expect?.pattern, start_after, max_len })
}

impl Custom {
    /// Returns the profile for the proxy in `role`; in each role `send` goes to the client and `expect` comes from it.
    pub(super) fn profile(&self, role: Role) -> Result<Profile, Problem> {
        let cannot = |why: &str| Problem::new(format!("cannot be \"{}\": {why} the profile", role.as_str()));
        let asks = match (role, &self.send) {
            (Role::App | Role::Answer, None) => {
                return Err(cannot("there is no `send` in").with_help("set `send` there, or name a `profile` here"));
            }
            (Role::App | Role::Passive, Some(send)) => {
                let pattern = Pattern::new(self.opcode, send, self.matching);
                Some(
                    pattern
                        .map_err(|error| cannot("it does not fit `send` in").with_help(format!("`send` {error}")))?,
                )
            }
            (Role::Answer, Some(_)) | (Role::Passive, None) => None,
        };
        let say = self.send.as_ref().filter(|_| role != Role::Passive);
        Ok(Profile {
            name: Profile::CUSTOM,
            send: say.map(|send| MessageTemplate::new(self.opcode, send)),
            proof: if asks.is_some() { ProofOfLife::Answers } else { ProofOfLife::Sends(DEFAULT_WINDOW) },
            asks,
            expect: vec![self.expect.clone()],
            start_after: self.start_after.clone(),
            max_len: self.max_len,
            handshake: None,
        })
    }
}

fn message_rule(given: &Given<'_>, opcode: Opcode, matching: Matching) -> Read<MessageRule> {
    let bytes = message(given, opcode)?;
    let pattern = Pattern::new(opcode, &bytes, matching).map_err(|error| Problem::new(error.to_string()))?;
    Ok(MessageRule { pattern, len: bytes.len() })
}

/// Reads the bytes of a message: the text itself or, in a binary profile, the bytes that its hexadecimal digits stand
/// for.
fn message(given: &Given<'_>, opcode: Opcode) -> Read<Box<[u8]>> {
    // The text of a variable may look like a TOML table: JSON often does.
    let text = given.value.as_str().or(given.literal).ok_or_else(|| {
        let problem = Problem::new("must be text");
        match given.integer() {
            Some(number) => problem.with_help(format!("write \"{number}\"")),
            None => problem,
        }
    })?;
    let bytes = match text.strip_prefix(HEX).filter(|_| opcode == Opcode::BINARY) {
        Some(digits) => hexadecimal(digits)?,
        None => text.as_bytes().to_vec(),
    };
    if bytes.is_empty() { Err(Problem::new(PatternError::Empty.to_string())) } else { Ok(bytes.into()) }
}

fn hexadecimal(digits: &str) -> Read<Vec<u8>> {
    if let Some(invalid) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        let problem = Problem::new(format!("must have nothing but hexadecimal digits behind \"{HEX}\""));
        return Err(problem.with_help(format!("{invalid:?} is none")));
    }
    if digits.len() % 2 == 1 {
        let problem = Problem::new(format!("must have two hexadecimal digits for each byte behind \"{HEX}\""));
        return Err(problem.with_help(format!("there are {}", digits.len())));
    }
    let digits: Vec<u8> = digits.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok()).collect();
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn max_len(given: &Given<'_>) -> Read<usize> {
    let len = size(given).ok().and_then(|len| usize::try_from(len).ok());
    len.filter(|len| *len <= MOST).ok_or_else(|| Problem::new(format!("must be a size from 1 to {MOST} bytes")))
}
