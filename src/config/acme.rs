//! Certificates of an authority: the keys of `[tls.acme]`.

use std::net::IpAddr;
use std::path::PathBuf;

use super::codec::{OneOf, Scalar, display, pattern as text_pattern};
use super::parse::{Given, Problem, Read, Words};
use super::parse_names::{domain_name, host_alone};
use super::reader::{KeyValue, Table};
use super::schema::{Visitor, decode};
use super::settings::{AcmeChallenge, AcmeSettings, ClientAuth, ExternalAccount, Listen, TlsMode};
use super::value_types::FILE;

const CHALLENGES: Words<AcmeChallenge> = &[
    (AcmeChallenge::TlsAlpn01.as_str(), AcmeChallenge::TlsAlpn01),
    (AcmeChallenge::Http01.as_str(), AcmeChallenge::Http01),
];

/// A name that an authority certifies.
const DOMAIN: Scalar<Box<str>> =
    Scalar { decode: domain, encode: display, schema: || text_pattern("^[A-Za-z0-9-]+(?:\\.[A-Za-z0-9-]+)+$") };

/// The most names of one certificate: the limit of Let's Encrypt, which others follow.
const MOST_DOMAINS: usize = 100;

/// A way to reach the operator.
const CONTACT: Scalar<Box<str>> =
    Scalar { decode: contact, encode: display, schema: || text_pattern("^(?:mailto:)?[^@\\s]+@[^@\\s]+$") };

/// The URL of a directory.
const DIRECTORY: Scalar<Box<str>> =
    Scalar { decode: directory, encode: display, schema: || text_pattern("^https://[^\\s/#]+[^\\s#]*$") };

/// An identifier of the authority's choice.
const KEY_ID: Scalar<Box<str>> = Scalar { decode: key_id, encode: display, schema: || text_pattern("^\\S+$") };

/// Visits `[tls.acme]`. Returns whether it can be used.
fn visit_acme(v: &mut Visitor<'_>, acme: &mut AcmeSettings) -> bool {
    v.list("domains", &DOMAIN, &mut acme.domains);
    v.list("contact", &CONTACT, &mut acme.contact);
    v.key("directory", &DIRECTORY, &mut acme.directory);
    v.optional("ca", &FILE, &mut acme.ca);
    v.key("storage", &FILE, &mut acme.storage);
    v.key("challenge", &OneOf(CHALLENGES), &mut acme.challenge);
    visit_external_account(&mut v.table("external_account"), &mut acme.external_account)
}

/// Visits `[tls.acme]` for a listing or a description; `None` are the defaults.
pub(super) fn visit_of(v: &mut Visitor<'_>, acme: Option<&AcmeSettings>) {
    let mut acme = acme.cloned().unwrap_or_else(|| AcmeSettings::of(Vec::new()));
    visit_acme(&mut v.table("acme"), &mut acme);
}

/// Returns whether `[tls.acme]` in `root` names domains, without which it has no effect.
pub(super) fn is_set(root: &Table<'_>) -> bool {
    let domains = root.table("tls").table("acme").list("domains", decode(&DOMAIN));
    match domains {
        KeyValue::Is(domains) => !domains.is_empty(),
        KeyValue::Refused => true,
        KeyValue::Unset => false,
    }
}

/// Visits `external_account`. Returns whether it can be used.
fn visit_external_account(v: &mut Visitor<'_>, external: &mut Option<ExternalAccount>) -> bool {
    const KEY_FILE: &str = "the file with the MAC key of the external account";
    const ID: &str = "the identifier of the external account";
    let mut account = external.clone().unwrap_or(ExternalAccount { key_id: "".into(), key_file: PathBuf::new() });
    let is_set = match v {
        Visitor::Read(table) => table.is_set(),
        Visitor::Describe(_) => true,
        _ => external.is_some(),
    };
    if !is_set {
        // Known all the same.
        let (mut id, mut file) = (None, None);
        v.optional("key_id", &KEY_ID, &mut id);
        v.optional("key_file", &FILE, &mut file);
        return true;
    }
    if let Visitor::Describe(_) = v {
        v.optional("key_id", &KEY_ID, &mut None);
        v.optional("key_file", &FILE, &mut None);
        v.describe("key_id", ID);
        v.describe("key_file", KEY_FILE);
        return true;
    }
    let has_id = v.required("key_id", &KEY_ID, ID, &mut account.key_id);
    let has_file = v.required("key_file", &FILE, KEY_FILE, &mut account.key_file);
    *external = (has_id && has_file).then_some(account);
    has_id && has_file
}

/// Reads `[tls.acme]` of `[tls]`; unset without domains.
pub(super) fn read(t: &Table<'_>) -> KeyValue<AcmeSettings> {
    let mut acme = AcmeSettings::of(Vec::new());
    let table = t.table("acme");
    let is_usable = visit_acme(&mut Visitor::Read(table.clone()), &mut acme);
    match table.list("domains", decode(&DOMAIN)) {
        KeyValue::Refused => return KeyValue::Refused,
        KeyValue::Is(domains) if !domains.is_empty() => {
            check_domains(&table, &domains);
            return if is_usable { KeyValue::Is(acme) } else { KeyValue::Refused };
        }
        KeyValue::Is(_) | KeyValue::Unset => {}
    }
    if !acme.contact.is_empty() {
        let problem = Problem::new("has no effect without `domains`: no certificate is ordered");
        table.refuse(&["contact", "domains"], problem.with_help("set domains, or --domain"));
    }
    KeyValue::Unset
}

/// Refuses names that stand twice, and more of them than one certificate may have.
fn check_domains(table: &Table<'_>, domains: &[Box<str>]) {
    let twice = domains.iter().enumerate().find(|(at, name)| domains[..*at].contains(name));
    if let Some((_, name)) = twice {
        let problem = Problem::new(format!("has \"{name}\" twice: names do not differ by case"));
        table.refuse(&["domains"], problem.with_help("leave it out once"));
    }
    if domains.len() > MOST_DOMAINS {
        let problem = Problem::new(format!("has {} names: a certificate has {MOST_DOMAINS} at most", domains.len()));
        table.refuse(&["domains"], problem.with_help("divide them among several proxies"));
    }
}

/// Refuses what keeps an authority from seeing that the names lead here.
pub(super) fn check(root: &Table<'_>, listen: &Listen, tls: &TlsMode) {
    let Some(tls) = tls.terminate() else { return };
    let Some(acme) = &tls.acme else { return };
    let t = root.table("tls").table("acme");
    match acme.challenge {
        AcmeChallenge::Http01 if listen.redirect.is_none() => {
            let problem =
                Problem::new("cannot be \"http-01\" without `redirect` in [listen]: no port answers plain HTTP");
            t.refuse(&["challenge"], problem.with_help("set redirect = \"0.0.0.0:80\" there"));
        }
        AcmeChallenge::TlsAlpn01 if matches!(tls.client_auth, ClientAuth::Required(_)) => {
            let problem = Problem::new("does not fit tls.client_auth: an authority has no client certificate to show");
            let help = "set challenge = \"http-01\", and redirect = \"0.0.0.0:80\" in [listen]";
            t.refuse(&["challenge", "domains"], problem.with_help(help));
        }
        _ => {}
    }
}

/// Reads a name that an authority certifies.
fn domain(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be a name such as \"app.example\"");
    let empty = || misfit().with_help("write the name by which clients reach the site");
    let text = given.text().filter(|text| !text.is_empty()).ok_or_else(empty)?;
    let problem = |what: &str| Problem::new(format!("cannot have \"{text}\": {what}"));
    if text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        let help = "write the name that leads there; for an address, set `certificate` and `private_key`";
        return Err(problem("certificates are ordered for names, not for addresses").with_help(help));
    }
    if text.contains('*') {
        let help =
            "list the names one by one, or get that certificate by DNS with another program and set `certificate`";
        return Err(problem("a wildcard needs a challenge in DNS, which pulsegate does not have").with_help(help));
    }
    host_alone(text)?;
    let name = text.to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        let help = "for this machine alone there is `pulsegate dev`";
        return Err(problem("no authority can reach it").with_help(help));
    }
    domain_name(&name)?;
    host_name(&name).map_err(|(what, help)| problem(&what).with_help(help))?;
    Ok(name.into())
}

/// Returns the fault of a name that DNS may have and an authority does not certify, with the remedy (RFC 1123 §2.1).
fn host_name(name: &str) -> Result<(), (String, &'static str)> {
    let labels: Vec<&str> = name.split('.').collect();
    if let Some(label) = labels.iter().find(|label| label.starts_with('-') || label.ends_with('-')) {
        return Err((format!("\"{label}\" begins or ends with a hyphen"), "check the spelling"));
    }
    if name.contains('_') {
        return Err(("authorities certify no name with an underscore".to_owned(), "give the site another name"));
    }
    if labels.len() == 1 {
        return Err(("authorities certify no name without a dot".to_owned(), "write the whole name, as in DNS"));
    }
    if labels.last().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(("no name ends with a number".to_owned(), "write the whole name, as in DNS"));
    }
    Ok(())
}

/// Reads an e-mail address, with or without `mailto:`.
fn contact(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new("must be an e-mail address such as \"ops@app.example\"");
    let text = given.text().ok_or_else(misfit)?.trim();
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let is_address = match address.split_once('@') {
        Some((name, host)) => {
            !name.is_empty() && host.contains('.') && !host.contains('@') && !address.contains([' ', ',', '?', '\t'])
        }
        None => false,
    };
    if !is_address || !address.is_ascii() {
        return Err(misfit());
    }
    Ok(format!("mailto:{address}").into())
}

/// Reads the URL of a directory.
fn directory(given: &Given<'_>) -> Read<Box<str>> {
    let misfit = || Problem::new(format!("must be a URL such as \"{}\"", AcmeSettings::LETS_ENCRYPT));
    let text = given.text().ok_or_else(misfit)?;
    let uri: http::Uri = text.parse().map_err(|_| misfit())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) if !host.is_empty() && !text.contains('#') => Ok(text.into()),
        (Some("http"), _) => Err(misfit().with_help("an authority is asked over https alone (RFC 8555 §6.1)")),
        (None, _) => Err(misfit().with_help(format!("write \"https://{text}\""))),
        _ => Err(misfit()),
    }
}

/// Reads the identifier of an external account.
fn key_id(given: &Given<'_>) -> Read<Box<str>> {
    match given.text() {
        Some(text) if !text.is_empty() && !text.contains(char::is_whitespace) => Ok(text.into()),
        _ => {
            let problem = Problem::new("must be the identifier that the authority shows for the account");
            Err(problem.with_help("copy it from the authority's page; without an account, leave out external_account"))
        }
    }
}
