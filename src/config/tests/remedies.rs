//! Compiled under `#[cfg(test)]` only.
//!
//! The remedy that each mistake is answered with: a test for each kind, with the mistakes of new users.

use std::path::Path;

use insta::assert_snapshot;

use super::{messages, read, refusal};
use crate::config::TlsRole::{self, Authorities, Certificate, PrivateKey};
use crate::config::document::Document;
use crate::config::{Environment, Overrides, TlsFault, resolve};

#[test]
fn a_port_beyond_the_last_one() {
    assert_snapshot!(refusal("[listen]\naddress = \"0.0.0.0:99999\""), @r#"
    error: `listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443"
     --> config/proxy.toml:2:11
      |
    2 | address = "0.0.0.0:99999"
      |           ^^^^^^^^^^^^^^^ 99999 is no port: ports go up to 65535

    1 error in the configuration
    "#);
    assert_snapshot!(messages("[admin]\nhealth = \"127.0.0.1:65536\"\nsocket = \"127.0.0.1:70000\"").join("\n"), @r#"
    `admin.health` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443", or "off" (65536 is no port: ports go up to 65535)
    `admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (70000 is no port: ports go up to 65535)
    "#);
    assert_snapshot!(messages("[origins]\nallow = [\"https://app.example:99999\"]").join("\n"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (99999 is no port: ports go up to 65535)"#);
    assert_snapshot!(messages("[[route]]\npath = \"/a\"\nupstream = \"http://app:99999\"").join("\n"), @r#"`route[0].upstream` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" or a table (99999 is no port: ports go up to 65535)"#);
}

#[test]
fn an_address_that_is_a_port_alone_or_lacks_one() {
    let of = |address: &str| messages(&format!("[listen]\naddress = {address}")).join("\n");
    assert_snapshot!(of("\"25500\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write "0.0.0.0:25500")"#);
    assert_snapshot!(of("25500"), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write "0.0.0.0:25500")"#);
    assert_snapshot!(of("99999"), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (99999 is no port: ports go up to 65535)"#);
    assert_snapshot!(of("\"*:8443\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write "0.0.0.0:8443")"#);
    assert_snapshot!(of("\"localhost:8443\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write "127.0.0.1:8443")"#);
    assert_snapshot!(of("\"localhost\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write the IP address of an interface, a colon and a port)"#);
    assert_snapshot!(of("\"127.0.0.1\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (add the port: write "127.0.0.1:8443")"#);
    assert_snapshot!(of("\"::1\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (add the port: write "[::1]:8443")"#);
    assert_snapshot!(of("\"https://127.0.0.1:8443/\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write "127.0.0.1:8443")"#);
    assert_snapshot!(of("\"app.example:8443\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (names are not resolved here: write an address of this machine, or "0.0.0.0:8443" for all of them)"#);
    assert_snapshot!(of("\"\""), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write the IP address of an interface, a colon and a port)"#);
    assert_snapshot!(of("true"), @r#"`listen.address` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443" (write the IP address of an interface, a colon and a port)"#);
    assert_snapshot!(messages("[admin]\nsocket = 4040").join("\n"), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "127.0.0.1:4040")"#);
    assert_snapshot!(messages("[admin]\nsocket = \"4040\"").join("\n"), @r#"`admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "127.0.0.1:4040")"#);
    assert_snapshot!(messages("[admin]\nhealth = false\nsocket = false").join("\n"), @r#"
    `admin.health` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443", or "off" (write "off")
    `admin.socket` must be an absolute path such as "/run/pulsegate/admin.sock" or "127.0.0.1:4040", or "off" (write "off")
    "#);
}

#[test]
fn an_app_that_is_a_port_alone() {
    let of = |url: &str| messages(&format!("[[route]]\npath = \"/a\"\nupstream = {url}")).join("\n");
    assert_snapshot!(of("\"3000\""), @r#"`route[0].upstream` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" or a table (write "http://127.0.0.1:3000")"#);
    assert_snapshot!(of("3000"), @r#"`route[0].upstream` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" or a table (write "http://127.0.0.1:3000")"#);
    assert_snapshot!(of("\"ftp://app:3000\""), @r#"`route[0].upstream` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" or a table (write where the app listens, as in "http://127.0.0.1:3000")"#);
}

#[test]
fn a_duration_with_a_sign_or_without_a_unit() {
    let of = |interval: &str| messages(&format!("[heartbeat]\ninterval = {interval}")).join("\n");
    assert_snapshot!(of("\"-5s\""), @r#"`heartbeat.interval` must be a duration such as "25s" (a duration has no sign: write "5s")"#);
    assert_snapshot!(of("-5"), @r#"`heartbeat.interval` must be a duration such as "25s" (write "5s")"#);
    assert_snapshot!(of("2.5"), @r#"`heartbeat.interval` must be a duration such as "25s" (write "2.5s")"#);
    assert_snapshot!(of("\"2.5\""), @r#"`heartbeat.interval` must be a duration such as "25s" (write "2.5s")"#);
    assert_snapshot!(of("true"), @r#"`heartbeat.interval` must be a duration such as "25s" (write a number and its unit: ms, s, m, h or d)"#);
}

#[test]
fn a_number_that_is_zero_quoted_or_broken() {
    let of = |max_missed: &str| messages(&format!("[heartbeat]\nmax_missed = {max_missed}")).join("\n");
    assert_snapshot!(of("0"), @r#"`heartbeat.max_missed` must be a whole number from 1 to 1000 (write 1 to end a session at its first miss, or mode = "off" for no heartbeat)"#);
    assert_snapshot!(of("-1"), @"`heartbeat.max_missed` must be a whole number from 1 to 1000 (the smallest is 1)");
    assert_snapshot!(of("\"3\""), @"`heartbeat.max_missed` must be a whole number from 1 to 1000 (write 3, without quotes)");
    assert_snapshot!(of("1.5"), @"`heartbeat.max_missed` must be a whole number from 1 to 1000 (write a whole number without quotes, such as 1000)");
    assert_snapshot!(of("5000"), @"`heartbeat.max_missed` must be a whole number from 1 to 1000 (the largest is 1000)");
    assert_snapshot!(messages("[heartbeat]\nadaptive = \"yes\"").join("\n"), @"`heartbeat.adaptive` must be true or false (write true)");
    assert_snapshot!(messages("[listen]\nhttp2 = false").join("\n"), @r#"`listen.http2` must be "on", "no-websockets" or "off" (write "off")"#);
    assert_snapshot!(messages("[heartbeat]\nmode = false").join("\n"), @r#"`heartbeat.mode` must be "protocol", "app", "answer", "passive" or "off" (write "off")"#);
}

#[test]
fn a_key_that_another_program_has() {
    let of = |text: &str| messages(text).join("\n");
    assert_snapshot!(of("[listen]\ntls = false"), @r#"unknown key `tls` in [listen] (set mode = "off" in [tls] to speak plain HTTP behind a proxy that terminates TLS)"#);
    assert_snapshot!(of("[listen]\nport = 8443"), @r#"unknown key `port` in [listen] (set `address`, with the port: address = "0.0.0.0:8443")"#);
    assert_snapshot!(read("[tls]\ncert = \"a\"\nkey = \"b\"\n[upstream]\nport = 3000").expect_err("none of them"), @r#"
    error: `tls.certificate` is missing: the PEM file of the server's certificate chain
     --> config/proxy.toml:1:2
      |
    1 | [tls]
      |  ^^^ set `certificate` in [tls], PULSEGATE__TLS__CERTIFICATE, or --certificate

    error: `tls.private_key` is missing: the PEM file of the certificate's key
     --> config/proxy.toml:1:2
      |
    1 | [tls]
      |  ^^^ set `private_key` in [tls], PULSEGATE__TLS__PRIVATE_KEY, or --private-key

    error: unknown key `cert` in [tls]
     --> config/proxy.toml:2:1
      |
    2 | cert = "a"
      | ^^^^ did you mean `certificate`?

    error: unknown key `key` in [tls]
     --> config/proxy.toml:3:1
      |
    3 | key = "b"
      | ^^^ did you mean `private_key`?

    error: `upstream.url` is missing: where the app listens
     --> config/proxy.toml:4:2
      |
    4 | [upstream]
      |  ^^^^^^^^ set `url` in [upstream], PULSEGATE__UPSTREAM__URL, or --upstream

    error: unknown key `port` in [upstream]
     --> config/proxy.toml:5:1
      |
    5 | port = 3000
      | ^^^^ set `url`: url = "http://127.0.0.1:3000", or "unix:/run/app.sock"

    6 errors in the configuration
    "#);
    assert_snapshot!(of("[heartbeat]\nenabled = false"), @r#"unknown key `enabled` in [heartbeat] (set mode = "off" for no heartbeat)"#);
    assert_snapshot!(of("[log]\nfile = \"/var/log/pulsegate.log\""), @"unknown key `file` in [log] (log lines go to standard error: redirect it, as in 2>>pulsegate.log)");
    assert_snapshot!(of("[heartbeat]\nlimits = { frame = 1 }\nroute = 1"), @"
    unknown key `limits` in [heartbeat] (`limits` is a section of its own: [limits])
    unknown key `route` in [heartbeat] (`route` is a list of its own: [[route]])
    ");
    assert_snapshot!(of("[drain]\npath = \"/a\""), @"unknown key `path` in [drain] (known here: code, delay, max_connection_age, window)");
}

#[test]
fn a_key_that_stands_twice_is_answered_with_the_first() {
    assert_snapshot!(refusal("[log]\nlevel = \"info\"\n\nlevel = \"warn\""), @r#"
    error: not valid TOML: duplicate key `level` in table `log`
     --> config/proxy.toml:4:1
      |
    4 | level = "warn"
      | ^ line 2 has it already: keep one of the two

    1 error in the configuration
    "#);
    assert_snapshot!(refusal("[log]\nlevel = \"info\"\n[heartbeat]\n[log]\nformat = \"json\""), @"
    error: not valid TOML: invalid table header, duplicate key `log` in document root
     --> config/proxy.toml:4:1
      |
    4 | [log]
      | ^ line 1 has it already: keep one of the two

    1 error in the configuration
    ");
    assert_snapshot!(refusal("[[route]]\npath = \"/a\"\n[[route]]\npath = \"/b\"\nhost = \"a\"\npath = \"/c\""), @r#"
    error: not valid TOML: duplicate key `path` in table `route`
     --> config/proxy.toml:6:1
      |
    6 | path = "/c"
      | ^ line 4 has it already: keep one of the two

    1 error in the configuration
    "#);
    assert_snapshot!(refusal("[heartbeat.on_miss.client]\ncode = 4000\ncode = 4001"), @"
    error: not valid TOML: duplicate key `code` in table `heartbeat.on_miss.client`
     --> config/proxy.toml:3:1
      |
    3 | code = 4001
      | ^ line 2 has it already: keep one of the two

    1 error in the configuration
    ");
}

#[test]
fn text_without_quotes() {
    assert_snapshot!(refusal("[log]\nlevel = info"), @r#"
    error: not valid TOML: expected newline, `#`
     --> config/proxy.toml:2:12
      |
    2 | level = info
      |            ^ text stands in quotes: write level = "info"

    1 error in the configuration
    "#);
    assert_snapshot!(refusal("[listen]\naddress = 0.0.0.0:8443 # all"), @r#"
    error: not valid TOML: expected newline, `#`
     --> config/proxy.toml:2:14
      |
    2 | address = 0.0.0.0:8443 # all
      |              ^ text stands in quotes: write address = "0.0.0.0:8443"

    1 error in the configuration
    "#);
    let of = |line: &str| messages(&format!("[heartbeat]\n{line}")).join("\n");
    assert_snapshot!(of("interval = 5s"), @r#"not valid TOML: expected newline, `#` (text stands in quotes: write interval = "5s")"#);
    assert_snapshot!(of("socket = /run/\"a\".sock"), @r#"not valid TOML: invalid string, expected `"`, `'` (text stands in quotes: write socket = '/run/"a".sock')"#);
    assert_snapshot!(of("adaptive = True"), @r#"not valid TOML: invalid string, expected `"`, `'` (write adaptive = true)"#);
    assert_snapshot!(of("interval = \"5s"), @r#"not valid TOML: invalid basic string (the closing " is missing)"#);
    assert_snapshot!(of("interval ="), @r#"not valid TOML: invalid string, expected `"`, `'` (the value of `interval` is missing)"#);
    assert_snapshot!(of("interval: \"5s\""), @r#"not valid TOML: expected `.`, `=` (a `=` is missing between key and value: write interval = "5s")"#);
    assert_snapshot!(of("interval \"5s\""), @r#"not valid TOML: expected `.`, `=` (a `=` is missing between key and value: write interval = "5s")"#);
    assert_snapshot!(of("on_miss.client = { code = 4000"), @"not valid TOML: invalid inline table, expected `}` (the closing `}` is missing)");
    assert_snapshot!(refusal("[[route]\npath = \"/a\""), @"
    error: not valid TOML: invalid table header, expected `.`, `]]`
     --> config/proxy.toml:1:8
      |
    1 | [[route]
      |        ^ end the header with `]]`

    1 error in the configuration
    ");
}

#[test]
fn a_required_key_names_every_way_to_set_it() {
    assert_snapshot!(read("").expect_err("nothing is set").one_line(), @"config/proxy.toml: tls.certificate: `tls.certificate` is missing: the PEM file of the server's certificate chain (set `certificate` in [tls], PULSEGATE__TLS__CERTIFICATE, or --certificate); config/proxy.toml: tls.private_key: `tls.private_key` is missing: the PEM file of the certificate's key (set `private_key` in [tls], PULSEGATE__TLS__PRIVATE_KEY, or --private-key); config/proxy.toml: upstream.url: `upstream.url` is missing: where the app listens (set `url` in [upstream], PULSEGATE__UPSTREAM__URL, or --upstream)");
    assert_snapshot!(messages("[[tls.sni]]\nnames = [\"a\"]").join("\n"), @"
    `tls.sni[0].certificate` is missing: the PEM file of the certificate chain for these names (set `certificate` in [[tls.sni]])
    `tls.sni[0].private_key` is missing: the PEM file of the certificate's key (set `private_key` in [[tls.sni]])
    ");
}

/// Returns the report on `text` whose files have `faults`.
fn with_faults(text: &str, faults: &[(TlsRole, &str)]) -> String {
    let faults: Vec<TlsFault> = faults
        .iter()
        .map(|(role, file)| TlsFault {
            role: *role,
            file: file.into(),
            what: format!("{file}: the fault"),
            help: Some("the remedy".to_owned()),
        })
        .collect();
    let document =
        Document::parse(Path::new("proxy.toml"), text.to_owned()).unwrap_or_else(|report| panic!("{report}"));
    let no_app = |_: &_| faults.clone();
    let (environment, overrides) = (Environment::default(), Overrides::default());
    match resolve(document, &environment, &overrides, |_| faults.clone(), no_app) {
        Ok(_) => "accepted".to_owned(),
        Err(report) => report.to_string(),
    }
}

#[test]
fn the_fault_of_a_file_stands_at_the_key_that_names_it() {
    let text = r#"
[tls]
certificate = "/a.crt"
private_key = "/a.key"
client_auth = { mode = "required", ca = "/clients.pem" }
[[tls.sni]]
names = ["b"]
certificate = "/b.crt"
private_key = "/b.key"
[upstream]
url = "http://127.0.0.1:3000"
"#;
    let faults = [
        (Certificate, "/a.crt"),
        (PrivateKey, "/a.key"),
        (Certificate, "/b.crt"),
        (PrivateKey, "/b.key"),
        (Authorities, "/clients.pem"),
    ];
    assert_snapshot!(with_faults(text, &faults), @r#"
    error: `tls.certificate` cannot be used: /a.crt: the fault
     --> proxy.toml:3:15
      |
    3 | certificate = "/a.crt"
      |               ^^^^^^^^ the remedy

    error: `tls.private_key` cannot be used: /a.key: the fault
     --> proxy.toml:4:15
      |
    4 | private_key = "/a.key"
      |               ^^^^^^^^ the remedy

    error: `tls.client_auth.ca` cannot be used: /clients.pem: the fault
     --> proxy.toml:5:41
      |
    5 | client_auth = { mode = "required", ca = "/clients.pem" }
      |                                         ^^^^^^^^^^^^^^ the remedy

    error: `tls.sni[0].certificate` cannot be used: /b.crt: the fault
     --> proxy.toml:8:15
      |
    8 | certificate = "/b.crt"
      |               ^^^^^^^^ the remedy

    error: `tls.sni[0].private_key` cannot be used: /b.key: the fault
     --> proxy.toml:9:15
      |
    9 | private_key = "/b.key"
      |               ^^^^^^^^ the remedy

    5 errors in the configuration
    "#);
    // One file with both: the part that it plays decides.
    let both = text.replace("/a.crt", "/both.pem").replace("/a.key", "/both.pem");
    assert_snapshot!(with_faults(&both, &[(PrivateKey, "/both.pem")]), @r#"
    error: `tls.private_key` cannot be used: /both.pem: the fault
     --> proxy.toml:4:15
      |
    4 | private_key = "/both.pem"
      |               ^^^^^^^^^^^ the remedy

    1 error in the configuration
    "#);
}

#[test]
fn the_fault_of_an_apps_file_stands_at_its_key_or_at_the_app() {
    let text = r#"
[tls]
mode = "off"
[forwarded]
trusted_proxies = ["10.0.0.0/8"]
[upstream]
url = "https://one"
tls = { ca = "/ca.pem", certificate = "/p.crt", private_key = "/p.key" }
[[route]]
path = "/two/"
upstream = "https://two"
"#;
    assert_snapshot!(with_faults(text, &[(PrivateKey, "/p.key"), (Authorities, "/ca.pem")]), @r#"
    error: `upstream.tls.ca` cannot be used: /ca.pem: the fault
     --> proxy.toml:8:14
      |
    8 | tls = { ca = "/ca.pem", certificate = "/p.crt", private_key = "/p.key" }
      |              ^^^^^^^^^ the remedy

    error: `upstream.tls.private_key` cannot be used: /p.key: the fault
     --> proxy.toml:8:63
      |
    8 | tls = { ca = "/ca.pem", certificate = "/p.crt", private_key = "/p.key" }
      |                                                               ^^^^^^^^ the remedy

    error: `route[0].upstream` cannot be used: https://two:443: /p.key: the fault
      --> proxy.toml:11:12
       |
    11 | upstream = "https://two"
       |            ^^^^^^^^^^^^^ the remedy

    3 errors in the configuration
    "#);
}
