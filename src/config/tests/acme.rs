//! Compiled under `#[cfg(test)]` only.
//!
//! `[tls.acme]`: what it changes elsewhere, and what is refused.

use std::path::Path;

use super::{messages, read, settings};
use crate::config::{AcmeChallenge, AcmeSettings, Environment, Overrides, Settings, TlsSettings, from_str};

fn terminates(settings: &Settings) -> &TlsSettings {
    settings.tls.terminate().expect("TLS is terminated here")
}

#[test]
fn without_domains_it_has_no_effect() {
    let plain = settings("[tls.acme]\nchallenge = \"http-01\"\n");
    assert_eq!(terminates(&plain).acme, None);
    assert_eq!(plain.listen, settings("").listen);
}

#[test]
fn domains_stand_in_for_files_and_open_the_ports_of_the_web() {
    let text = "[tls.acme]\ndomains = [\"App.example\", \"www.app.example\"]\ncontact = [\"ops@app.example\"]\n\
                [upstream]\nurl = \"http://127.0.0.1:3000\"\n";
    let public = read(text).unwrap_or_else(|report| panic!("{report}"));
    let tls = terminates(&public);
    let acme = tls.acme.as_ref().expect("domains are set");
    assert_eq!(*acme.domains, ["app.example".into(), "www.app.example".into()]);
    assert_eq!(*acme.contact, ["mailto:ops@app.example".into()]);
    assert_eq!((&*acme.directory, acme.challenge), (AcmeSettings::LETS_ENCRYPT, AcmeChallenge::TlsAlpn01));
    let file = "/var/lib/pulsegate/acme/acme-v02.api.letsencrypt.org-directory/app.example+1505d748.pem";
    assert_eq!((tls.certificate.as_path(), tls.private_key.as_path()), (Path::new(file), Path::new(file)));
    assert_eq!(public.listen.address.to_string(), "0.0.0.0:443");
    assert_eq!(public.listen.redirect.map(|at| at.to_string()).as_deref(), Some("0.0.0.0:80"));

    let mapped =
        read(&format!("{text}[listen]\naddress = \"0.0.0.0:8443\"\n")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((mapped.listen.address.port(), mapped.listen.redirect), (8443, None), "as it is set");
}

#[test]
fn files_may_stay_beside_domains() {
    let public = settings("[tls.acme]\ndomains = [\"app.example\"]\n");
    assert!(terminates(&public).certificate.ends_with("app.example.pem"));
}

#[test]
fn flags_set_domains_and_contact() {
    let overrides = Overrides {
        domain: vec!["a.example".to_owned(), "b.example".to_owned()],
        email: vec!["ops@a.example".to_owned()],
        upstream: Some("http://127.0.0.1:3000".to_owned()),
        ..Overrides::default()
    };
    let public = from_str(Path::new("a"), "", &Environment::default(), &overrides);
    let public = public.unwrap_or_else(|report| panic!("{report}"));
    let acme = terminates(&public).acme.as_ref().expect("domains are set");
    assert_eq!(*acme.domains, ["a.example".into(), "b.example".into()]);
    assert_eq!(*acme.contact, ["mailto:ops@a.example".into()]);
}

#[test]
fn a_domain_that_is_refused_asks_for_no_files() {
    let overrides = Overrides {
        domain: vec!["*.app.example".to_owned()],
        upstream: Some("http://127.0.0.1:3000".to_owned()),
        ..Overrides::default()
    };
    let report = from_str(Path::new("a"), "", &Environment::default(), &overrides).expect_err("a wildcard");
    let messages: Vec<_> = report.findings().iter().map(|finding| &finding.message).collect();
    assert!(messages.len() == 1 && messages[0].contains("a wildcard needs a challenge in DNS"), "{messages:?}");
}

#[test]
fn what_no_authority_can_do_is_refused_with_the_way_out() {
    for (keys, message) in [
        (
            "domains = [\"*.app.example\"]",
            "`tls.acme.domains[0]` cannot have \"*.app.example\": a wildcard needs a challenge in DNS, which pulsegate does \
             not have (list the names one by one, or get that certificate by DNS with another program and set `certificate`)",
        ),
        (
            "domains = [\"localhost\"]",
            "`tls.acme.domains[0]` cannot have \"localhost\": no authority can reach it (for this machine alone there is \
             `pulsegate dev`)",
        ),
        (
            "domains = [\"192.0.2.7\"]",
            "`tls.acme.domains[0]` cannot have \"192.0.2.7\": certificates are ordered for names, not for addresses (write the \
             name that leads there; for an address, set `certificate` and `private_key`)",
        ),
        (
            "contact = [\"ops@app.example\"]",
            "`tls.acme.contact` has no effect without `domains`: no certificate is ordered (set domains, or --domain)",
        ),
        (
            "domains = [\"a.example\"]\ncontact = [\"ops\"]",
            "`tls.acme.contact[0]` must be an e-mail address such as \"ops@app.example\"",
        ),
        (
            "domains = [\"a.example\"]\ndirectory = \"http://ca.internal/dir\"",
            "`tls.acme.directory` must be a URL such as \"https://acme-v02.api.letsencrypt.org/directory\" (an authority is \
             asked over https alone (RFC 8555 §6.1))",
        ),
        (
            "domains = [\"a.example\"]\ndirectory = \"https://ca.internal/dir#1\"",
            "`tls.acme.directory` must be a URL such as \"https://acme-v02.api.letsencrypt.org/directory\"",
        ),
        (
            "domains = [\"a.example\"]\nchallenge = \"dns-01\"",
            "`tls.acme.challenge` must be \"tls-alpn-01\" or \"http-01\"",
        ),
        (
            "domains = [\"a.example\"]\nexternal_account = { key_id = \"\", key_file = \"a\" }",
            "`tls.acme.external_account.key_id` must be the identifier that the authority shows for the account",
        ),
        (
            "domains = [\"a.example\"]\nexternal_account = { key_id = \"kid\" }",
            "`tls.acme.external_account.key_file` is missing: the file with the MAC key of the external account (set \
             `key_file` in [tls.acme.external_account], or PULSEGATE__TLS__ACME__EXTERNAL_ACCOUNT__KEY_FILE)",
        ),
    ] {
        let all = messages(&format!("[tls.acme]\n{keys}"));
        assert!(all.len() == 1 && all[0].starts_with(message), "{keys}: {all:#?}");
    }
}

/// Returns the messages about a configuration that has nothing but `domains` and an app.
fn about(domains: &[&str]) -> Vec<String> {
    let text = format!(
        "[tls.acme]\ndomains = {domains:?}\ncontact = [\"ops@app.example\"]\n[upstream]\nurl = \"unix:/run/app.sock\"\n"
    );
    match read(&text) {
        Ok(_) => Vec::new(),
        Err(report) => report.findings().iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_refused_name_is_the_only_error() {
    let (label, name) = ("a".repeat(64), vec!["abcdefghi"; 26].join("."));
    for (domain, words) in [
        ("*.app.example", "a wildcard needs a challenge in DNS"),
        ("a*.example", "a wildcard needs a challenge in DNS"),
        ("192.0.2.7", "certificates are ordered for names, not for addresses"),
        ("2001:db8::7", "certificates are ordered for names, not for addresses"),
        ("[2001:db8::7]", "certificates are ordered for names, not for addresses"),
        ("b\u{fc}cher.example", "write it in Punycode, which begins with \"xn--\""),
        ("app.example.", "must be a host alone, without a dot at the end"),
        ("app.example:443", "write \"app.example\""),
        ("https://app.example", "write \"app.example\""),
        ("../x.example", "must be a host alone, without a path"),
        ("../x.example", "such as \"app.example\""),
        ("localhost", "no authority can reach it"),
        ("app.localhost", "no authority can reach it"),
        ("", "write the name by which clients reach the site"),
        ("app..example", "letters, digits and hyphens between dots"),
        ("a b.example", "letters, digits and hyphens between dots"),
        (&format!("{label}.example"), "at most 63 characters between two dots"),
        (&name, "at most 253 characters"),
        ("-a.example", "\"-a\" begins or ends with a hyphen"),
        ("a-.example", "\"a-\" begins or ends with a hyphen"),
        ("a_b.example", "authorities certify no name with an underscore"),
        ("12.34", "no name ends with a number"),
        ("a", "authorities certify no name without a dot"),
    ] {
        let all = about(&["good.example", domain]);
        assert!(all.len() == 1, "{domain}: {all:#?}");
        assert!(all[0].contains("`tls.acme.domains[1]`") && all[0].contains(words), "{domain}: {all:#?}");
        for false_friend in ["write \".\"", "*.app.example\" (", "[tls])", "write \"\""] {
            assert!(!all[0].contains(false_friend), "{domain}: {all:#?}");
        }
    }
    for domain in ["xn--bcher-kva.example", "a--b.example", "1.2.3.4.example", "A.EXAMPLE"] {
        assert_eq!(about(&[domain]), [] as [&str; 0], "{domain}");
    }
}

#[test]
fn a_flag_with_a_bad_name_is_the_only_error_too() {
    let overrides = Overrides {
        domain: vec!["*.x".to_owned()],
        upstream: Some("http://127.0.0.1:3000".to_owned()),
        ..Overrides::default()
    };
    let report = from_str(Path::new("a"), "", &Environment::default(), &overrides).expect_err("a wildcard");
    let keys: Vec<_> = report.findings().iter().map(|finding| finding.key.clone()).collect();
    assert_eq!(keys, [Some("tls.acme.domains[0]".to_owned())]);
}

#[test]
fn names_stand_once_and_fit_one_certificate() {
    let twice = about(&["app.example", "APP.EXAMPLE"]);
    assert!(twice.len() == 1 && twice[0].contains("`tls.acme.domains` has \"app.example\" twice"), "{twice:#?}");
    let names: Vec<String> = (0..101).map(|n| format!("n{n}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(about(&names[1..]), [] as [&str; 0], "a hundred");
    let many = about(&names);
    assert!(many.len() == 1 && many[0].contains("has 101 names: a certificate has 100 at most"), "{many:#?}");
}

#[test]
fn a_challenge_needs_its_port_and_no_client_certificate() {
    let http = "[listen]\naddress = \"0.0.0.0:8443\"\n[tls.acme]\ndomains = [\"a.example\"]\nchallenge = \"http-01\"";
    assert_eq!(
        messages(http),
        [
            "`tls.acme.challenge` cannot be \"http-01\" without `redirect` in [listen]: no port answers plain HTTP (set redirect \
          = \"0.0.0.0:80\" there)"
        ]
    );
    let required = "[tls.client_auth]\nmode = \"required\"\nca = \"ca.pem\"\n[tls.acme]\ndomains = [\"a.example\"]";
    assert_eq!(
        messages(required),
        [
            "`tls.acme.domains` does not fit tls.client_auth: an authority has no client certificate to show (set challenge = \
          \"http-01\", and redirect = \"0.0.0.0:80\" in [listen])"
        ]
    );
}
