//! Compiled under `#[cfg(test)]` only.
//!
//! The client's side and the app's: what the sections make of it, and what they refuse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use insta::assert_snapshot;

use super::{REQUIRED, messages, read, read_with, refusal, settings};
use crate::config::{
    AllowedOrigin, ClientAuth, ConnectionLimit, EdgeLimits, HostPattern, Http2, OriginPolicy, Settings, TlsMode,
    TlsSettings, UpstreamTarget,
};

fn of(text: &str) -> String {
    messages(text).join("\n")
}

/// Returns the report on `keys` in [tls], behind the required ones.
fn of_tls(keys: &str) -> String {
    told(&REQUIRED.replace("private_key = \"tls.key\"\n", &format!("private_key = \"tls.key\"\n{keys}\n")))
}

/// Returns the report on `keys` in [upstream], with this url.
fn of_app(url: &str, keys: &str) -> String {
    told(&(REQUIRED.replace("http://127.0.0.1:3000", url) + keys))
}

fn told(text: &str) -> String {
    let report = read(text).expect_err(text);
    let said = report.findings().iter().map(|finding| match &finding.help {
        Some(help) => format!("{} ({help})", finding.message),
        None => finding.message.clone(),
    });
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_edge_is_plain_unless_it_is_told_otherwise() {
    let Settings { listen, tls, upstream, routes, limits, forwarded, .. } = settings("");
    assert_eq!((listen.proxy_protocol, listen.redirect, listen.http2), (None, None, Http2::On));
    assert_eq!(tls, TlsSettings::of("config/tls.crt", "config/tls.key").into());
    assert_eq!((upstream.tls.clone(), upstream.source_addresses.len()), (None, 0));
    assert_eq!(limits, EdgeLimits::default());
    assert!(forwarded.trusted_proxies.is_empty() && !forwarded.rfc7239);
    assert_eq!(*routes[0].origins, OriginPolicy::Any);
    assert!(Arc::ptr_eq(&routes[0].upstream, &upstream));
}

#[test]
fn errors_of_lists_point_at_their_elements() {
    assert_snapshot!(refusal(r#"
[listen]
proxy_protocol = { trusted = ["10.0.0.0/8", "10.1.2.3/16", "10.0.0.0/64"], trustd = [] }

[origins]
allow = [
    "app.example",
    "https://app.example/chat",
]

[[tls.sni]]
names = ["https://app.example", "*.app.example"]
certificate = "a"
private_key = "b"
"#), @r#"
    error: `listen.proxy_protocol.trusted[1]` is not the network itself: an address in 10.1.0.0/16
     --> config/proxy.toml:3:45
      |
    3 | proxy_protocol = { trusted = ["10.0.0.0/8", "10.1.2.3/16", "10.0.0.0/64"], trustd = [] }
      |                                             ^^^^^^^^^^^^^ write "10.1.0.0/16", or "10.1.2.3" for this one address

    error: `listen.proxy_protocol.trusted[2]` must have a prefix of 0 to 32 bits
     --> config/proxy.toml:3:60
      |
    3 | proxy_protocol = { trusted = ["10.0.0.0/8", "10.1.2.3/16", "10.0.0.0/64"], trustd = [] }
      |                                                            ^^^^^^^^^^^^^

    error: unknown key `trustd` in [listen.proxy_protocol]
     --> config/proxy.toml:3:76
      |
    3 | proxy_protocol = { trusted = ["10.0.0.0/8", "10.1.2.3/16", "10.0.0.0/64"], trustd = [] }
      |                                                                            ^^^^^^ did you mean `trusted`?

    error: `origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null"
     --> config/proxy.toml:7:5
      |
    7 |     "app.example",
      |     ^^^^^^^^^^^^^ write "https://app.example"

    error: `origins.allow[1]` must be an origin, which has no path
     --> config/proxy.toml:8:5
      |
    8 |     "https://app.example/chat",
      |     ^^^^^^^^^^^^^^^^^^^^^^^^^^ write "https://app.example"

    error: `tls.sni[0].names[0]` must be a host alone, without a scheme
      --> config/proxy.toml:12:10
       |
    12 | names = ["https://app.example", "*.app.example"]
       |          ^^^^^^^^^^^^^^^^^^^^^ write "app.example"

    6 errors in the configuration
    "#);
}

#[test]
fn lists_are_set_in_variables_as_they_are_in_the_file() {
    let variables = [
        ("PULSEGATE__ORIGINS__ALLOW", "[\"https://a.example\", 'same-host']"),
        ("PULSEGATE__LISTEN__PROXY_PROTOCOL", "{ trusted = [\"10.0.0.0/8\"] }"),
        ("PULSEGATE__FORWARDED__TRUSTED_PROXIES", "[\"127.0.0.1\"]"),
        ("PULSEGATE__UPSTREAM__SOURCE_ADDRESSES", "[]"),
        ("PULSEGATE__TLS__SNI", "[{ names = [\"b.example\"], certificate = \"b.crt\", private_key = \"b.key\" }]"),
    ];
    let read = read_with(REQUIRED, &variables).unwrap_or_else(|report| panic!("{report}"));
    let allowed = vec![AllowedOrigin::Exact("https://a.example".into()), AllowedOrigin::SameHost];
    assert_eq!(*read.routes[0].origins, OriginPolicy::Only(allowed));
    assert_eq!(read.listen.proxy_protocol.expect("it is set").trusted[0].to_string(), "10.0.0.0/8");
    assert_eq!(read.forwarded.trusted_proxies[0].to_string(), "127.0.0.1/32");
    let tls = read.tls.terminate().expect("by default");
    assert_eq!(tls.sni[0].certificate, PathBuf::from("b.crt"), "from the working directory");

    let wrong = [
        ("PULSEGATE__ORIGINS__ALLOW", "https://a.example"),
        ("PULSEGATE__UPSTREAM__SOURCE_ADDRESSES", "[\"127.0.0.2\", \"here\"]"),
        ("PULSEGATE__LISTEN__PROXY_PROTOCOL", "on"),
    ];
    assert_snapshot!(read_with(REQUIRED, &wrong).expect_err("no lists"), @r#"
    error: `listen.proxy_protocol` must be "off" or a table
    --> environment variable PULSEGATE__LISTEN__PROXY_PROTOCOL
     |
     | on
     | ^^

    error: `origins.allow` must be a list
    --> environment variable PULSEGATE__ORIGINS__ALLOW
     |
     | https://a.example
     | ^^^^^^^^^^^^^^^^^ write ["https://a.example"]

    error: `upstream.source_addresses[1]` must be an IP address such as "127.0.0.2"
    --> environment variable PULSEGATE__UPSTREAM__SOURCE_ADDRESSES
     |
     | ["127.0.0.2", "here"]
     | ^^^^^^^^^^^^^^^^^^^^^

    3 errors in the configuration
    "#);
}

#[test]
fn who_speaks_for_others_is_named() {
    let proxy = |trusted: &str| of(&format!("[listen]\nproxy_protocol = {trusted}"));
    assert_snapshot!(proxy("{ trusted = [] }"), @"`listen.proxy_protocol.trusted` must not be empty: the networks of the load balancers that send the header");
    assert_snapshot!(proxy("{}"), @"`listen.proxy_protocol.trusted` is missing: the networks of the load balancers that send the header (set `trusted` in [listen.proxy_protocol], or PULSEGATE__LISTEN__PROXY_PROTOCOL__TRUSTED)");
    assert_snapshot!(proxy("true"), @r#"`listen.proxy_protocol` must be "off" or a table"#);
    assert_snapshot!(proxy("{ trusted = \"10.0.0.0/8\" }"), @r#"`listen.proxy_protocol.trusted` must be a list (write ["10.0.0.0/8"])"#);
    assert_snapshot!(proxy("{ trusted = [10] }"), @r#"`listen.proxy_protocol.trusted[0]` must be a network such as "10.0.0.0/8" or "2001:db8::/32""#);
    assert_eq!(settings("[listen]\nproxy_protocol = \"off\"").listen.proxy_protocol, None);
    let forwarded = |trusted: &str| of(&format!("[forwarded]\ntrusted_proxies = [\"{trusted}\"]"));
    assert_snapshot!(forwarded("10.0.0.1/8"), @r#"`forwarded.trusted_proxies[0]` is not the network itself: an address in 10.0.0.0/8 (write "10.0.0.0/8", or "10.0.0.1" for this one address)"#);
    assert_snapshot!(forwarded("2001:db8::1/32"), @r#"`forwarded.trusted_proxies[0]` is not the network itself: an address in 2001:db8::/32 (write "2001:db8::/32", or "2001:db8::1" for this one address)"#);
    assert_snapshot!(forwarded("10.0.0.0/33"), @"`forwarded.trusted_proxies[0]` must have a prefix of 0 to 32 bits");
    assert_snapshot!(forwarded("loopback"), @r#"`forwarded.trusted_proxies[0]` must be a network such as "10.0.0.0/8" or "2001:db8::/32""#);
}

#[test]
fn http2_is_on_or_off_or_without_websockets() {
    let http2 = |text: &str| settings(&format!("[listen]\nhttp2 = \"{text}\"")).listen.http2;
    assert_eq!(["on", "off", "no-websockets"].map(http2), [Http2::On, Http2::Off, Http2::NoWebSockets]);
    let refused = |text: &str| of(&format!("[listen]\nhttp2 = {text}"));
    assert_snapshot!(refused("\"no-websocket\""), @r#"`listen.http2` must be "on", "no-websockets" or "off" (did you mean "no-websockets"?)"#);
    assert_snapshot!(refused("false"), @r#"`listen.http2` must be "on", "no-websockets" or "off" (write "off")"#);
}

#[test]
fn the_redirect_has_a_port_of_its_own() {
    let redirect = |text: &str| of(&format!("[listen]\n{text}"));
    assert_snapshot!(redirect("redirect = \"0.0.0.0:8443\""), @"`listen.redirect` does not fit: 0.0.0.0:8443 is taken by the TLS port, 0.0.0.0:8443 (choose another port: plain HTTP is usually 80 or 8080)");
    assert_snapshot!(redirect("address = \"127.0.0.1:443\"\nredirect = \"[::]:443\""), @"`listen.redirect` does not fit: [::]:443 is taken by the TLS port, 127.0.0.1:443 (choose another port: plain HTTP is usually 80 or 8080)");
    assert_snapshot!(redirect("redirect = \":80\""), @r#"`listen.redirect` must be an address and a port such as "0.0.0.0:8443" or "[::]:8443", or "off" (write "0.0.0.0:80")"#);
    settings("[listen]\naddress = \"127.0.0.1:443\"\nredirect = \"127.0.0.2:443\"");
    settings("[listen]\naddress = \"127.0.0.1:0\"\nredirect = \"127.0.0.1:0\"");
}

#[test]
fn certificates_have_names_that_clients_ask_for() {
    let sni = |names: &str| of_tls(&format!("[[tls.sni]]\n{names}\ncertificate = \"a\"\nprivate_key = \"b\""));
    assert_snapshot!(sni(""), @"`tls.sni[0].names` is missing: the names that the certificate is for (set `names` in [[tls.sni]])");
    assert_snapshot!(sni("names = []"), @"`tls.sni[0].names` must not be empty: the names that the certificate is for");
    assert_snapshot!(sni("names = \"app.example\""), @r#"`tls.sni[0].names` must be a list (write ["app.example"])"#);
    let name = |name: &str| sni(&format!("names = [\"{name}\"]"));
    assert_snapshot!(name("https://app.example:8443/"), @r#"`tls.sni[0].names[0]` must be a host alone, without a scheme (write "app.example")"#);
    assert_snapshot!(name("app.example:443"), @r#"`tls.sni[0].names[0]` must be a host alone, without a port (write "app.example")"#);
    assert_snapshot!(name("app.example/chat"), @r#"`tls.sni[0].names[0]` must be a host alone, without a path (write "app.example")"#);
    assert_snapshot!(name("app.example."), @r#"`tls.sni[0].names[0]` must be a host alone, without a dot at the end (write "app.example")"#);
    assert_snapshot!(name("app.*.example"), @r#"`tls.sni[0].names[0]` may have a wildcard only as its whole first label (as in "*.app.example")"#);
    assert_snapshot!(name("w*.example"), @r#"`tls.sni[0].names[0]` may have a wildcard only as its whole first label (as in "*.app.example")"#);
    assert_snapshot!(name("*"), @r#"`tls.sni[0].names[0]` may have a wildcard only as its whole first label (as in "*.app.example")"#);
    assert_snapshot!(name("bücher.example"), @r#"`tls.sni[0].names[0]` must be a name as it stands in DNS (write it in Punycode, which begins with "xn--")"#);
    assert_snapshot!(name("app example"), @"`tls.sni[0].names[0]` must be a name as it stands in DNS: letters, digits and hyphens between dots");
    assert_snapshot!(name("192.0.2.1"), @r#"`tls.sni[0].names[0]` must be a name such as "app.example" or "*.app.example" (clients send no addresses as server names: they get the certificate of [tls])"#);
    assert_snapshot!(name(""), @r#"`tls.sni[0].names[0]` must be a name such as "app.example" or "*.app.example""#);
    assert_snapshot!(of_tls("[[tls.sni]]\nnames = [\"a.example\"]"), @"
    `tls.sni[0].certificate` is missing: the PEM file of the certificate chain for these names (set `certificate` in [[tls.sni]])
    `tls.sni[0].private_key` is missing: the PEM file of the certificate's key (set `private_key` in [[tls.sni]])
    ");
    assert_snapshot!(of_tls("sni = { names = [\"a.example\"] }"), @"`tls.sni` must be a list of tables (write [[tls.sni]] in the file)");
    let two = "[[tls.sni]]\nnames = [\"A.example\"]\ncertificate = \"a\"\nprivate_key = \"b\"\n";
    assert_snapshot!(of_tls(&two.repeat(2)), @r#"`tls.sni[1].names` cannot have "a.example": an earlier certificate is for it (leave it out here or there)"#);
}

#[test]
fn clients_are_asked_for_a_certificate_of_somebody() {
    let auth = |table: &str| of_tls(&format!("client_auth = {table}"));
    assert_snapshot!(auth("{ mode = \"required\" }"), @"`tls.client_auth.ca` is missing: the PEM file of the authorities that sign the clients' certificates (set `ca` in [tls.client_auth], or PULSEGATE__TLS__CLIENT_AUTH__CA)");
    assert_snapshot!(auth("{ ca = \"a\" }"), @r#"`tls.client_auth.ca` has no effect without `mode`: no certificate is requested (set mode = "required" or mode = "optional" beside it)"#);
    assert_snapshot!(auth("{ mode = \"require\", ca = \"a\" }"), @r#"`tls.client_auth.mode` must be "off", "optional" or "required" (did you mean "required"?)"#);
    assert_snapshot!(auth("\"required\""), @"`tls.client_auth` must be a table (write [tls.client_auth] and its keys below it, or client_auth = { … })");
    let read = |table: &str| {
        let text = REQUIRED.replace("[upstream]", &format!("client_auth = {table}\n[upstream]"));
        let tls = read(&text).unwrap_or_else(|report| panic!("{report}")).tls;
        tls.terminate().expect("by default").client_auth.clone()
    };
    assert_eq!(read("{ mode = \"optional\", ca = \"/a\" }"), ClientAuth::Optional("/a".into()));
    assert_eq!(read("{ mode = \"required\", ca = \"/a\" }"), ClientAuth::Required("/a".into()));
    assert_eq!(read("{ mode = \"off\", ca = \"/a\" }"), ClientAuth::Off, "for now, as somebody says");
    assert_snapshot!(of_tls("hsts = \"1500ms\""), @r#"`tls.hsts` must be whole seconds, or "off" (write it in s, m, h or d)"#);
    assert_snapshot!(of_tls("hsts = true"), @r#"`tls.hsts` must be a duration such as "25s", or "off" (write a number and its unit: ms, s, m, h or d)"#);
}

#[test]
fn an_app_has_a_pinned_key_or_several() {
    const ONE: &str = "sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=";
    const OTHER: &str = "sha256/E9CZ9INDbd+2eRQozYqqbQ2yXLVKB9+xcprMF+44U1g=";
    let app = |tls: &str| {
        let text = REQUIRED.replace("http://127.0.0.1:3000", "https://app:3443") + &format!("tls = {{ {tls} }}\n");
        read(&text).map(|settings| settings.upstream.tls.clone().expect("https"))
    };
    let pins = |tls: &str| app(tls).expect("valid").pins.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(pins(&format!("pin = \"{ONE}\"")), [ONE]);
    assert_eq!(pins(&format!("pin = [\"{ONE}\", \"{OTHER}\"], server_name = \"a\"")), [ONE, OTHER]);
    let wrong = |tls: &str| of_app("https://app:3443", &format!("tls = {{ {tls} }}\n"));
    assert_snapshot!(wrong("pin = \"d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\""), @r#"`upstream.tls.pin` must be "sha256/" and the Base64 of a hash, or a list of such pins (`pulsegate check --connect` prints the pin of an app)"#);
    assert_snapshot!(wrong("pin = \"sha256//d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=\""), @r#"`upstream.tls.pin` must be "sha256/" and the Base64 of a hash, or a list of such pins (write "sha256/d6qzRu9zOECb90Uez27xWltNsj0e1Md7GkYYkVoZWmM=")"#);
    assert_snapshot!(wrong(&format!("pin = \"{}\"", "0f".repeat(32))), @r#"`upstream.tls.pin` must be "sha256/" and the Base64 of a hash, or a list of such pins (this is the hash in hexadecimal)"#);
    assert_snapshot!(wrong("pin = []"), @"`upstream.tls.pin` must not be empty: no key would be trusted");
    assert_snapshot!(wrong("pin = 7"), @r#"`upstream.tls.pin` must be "sha256/" and the Base64 of a hash, or a list of such pins (`pulsegate check --connect` prints the pin of an app)"#);
    assert_snapshot!(wrong(&format!("ca = \"ca.pem\", pin = \"{ONE}\"")), @"`upstream.tls.pin` does not go together with `ca`: the signer of a pinned key is not checked (leave out one of the two)");
    assert_snapshot!(of_app("http://127.0.0.1:3000", &format!("tls = {{ pin = \"{ONE}\" }}")), @r#"`upstream.tls` is for an app that is reached by https; this is http://127.0.0.1:3000 (write url = "https://…", or leave out `tls`)"#);
}

#[test]
fn an_app_is_told_of_clients_by_a_header() {
    let text = "proxy_protocol = \"v2\"\n[[route]]\npath = \"/own/\"\nupstream = \"http://other:3000\"\n\
                [[route]]\npath = \"/same/\"\nupstream = { response_timeout = \"9s\" }\n";
    let settings = settings(text);
    let told = |path: &str| {
        let route = settings.routes.iter().find(|route| &*route.path == path).expect(path);
        route.upstream.proxy_protocol
    };
    assert_eq!((told("/"), told("/same/"), told("/own/")), (true, true, false), "another place may not expect it");
    assert_snapshot!(of_app("http://127.0.0.1:3000", "proxy_protocol = \"v1\""), @r#"`upstream.proxy_protocol` must be "off" or "v2" (did you mean "v2"?)"#);
}

#[test]
fn without_tls_what_needs_a_certificate_is_refused_and_proxies_are_named() {
    let off = |text: &str| {
        let upstream = "[upstream]\nurl = \"http://127.0.0.1:3000\"\n";
        told(&format!("[tls]\nmode = \"off\"\n{text}\n{upstream}"))
    };
    let trusted = "[forwarded]\ntrusted_proxies = [\"10.0.0.0/8\"]";
    assert_snapshot!(off(""), @r#"`tls.mode` cannot be "off" without `trusted_proxies` in [forwarded]: any client could connect, and claim any address (set trusted_proxies to the networks of the proxies that terminate TLS, such as ["10.0.0.0/8"]; or set mode = "terminate")"#);
    assert_snapshot!(off(&format!("strict_sni = true\nmodern = true\nhsts = \"180d\"\nclient_auth = {{ mode = \"required\", ca = \"a\" }}\n\
        [[tls.sni]]\nnames = [\"a.example\"]\ncertificate = \"a\"\nprivate_key = \"b\"\n{trusted}")), @r#"
    `tls.strict_sni` has no effect with mode = "off": TLS is not used here (leave it out, and set it on the proxy that terminates TLS)
    `tls.modern` has no effect with mode = "off": TLS is not used here (leave it out, and set it on the proxy that terminates TLS)
    `tls.hsts` has no effect with mode = "off": TLS is not used here (leave it out, and set it on the proxy that terminates TLS)
    `tls.client_auth` has no effect with mode = "off": TLS is not used here (leave it out, and set it on the proxy that terminates TLS)
    `tls.sni` has no effect with mode = "off": TLS is not used here (leave it out, and set it on the proxy that terminates TLS)
    "#);
    assert_snapshot!(off(&format!("[listen]\nredirect = \"0.0.0.0:80\"\n[limits]\nhandshakes_per_ip = 5\n\
        [admin]\nsocket = \"127.0.0.1:4040\"\ntls = true\n{trusted}")), @r#"
    `listen.redirect` has no effect with tls.mode = "off": there is no https here to redirect to (leave it out, and redirect on the proxy that terminates TLS)
    `limits.handshakes_per_ip` has no effect with tls.mode = "off": there are no handshakes here (leave it out, and set it on the proxy that terminates TLS)
    `admin.tls` needs a certificate, and with tls.mode = "off" there is none (leave it out, and administer through a unix socket or 127.0.0.1)
    "#);
    assert_snapshot!(of_tls("mode = \"plain\""), @r#"`tls.mode` must be "terminate" or "off""#);
    let valid = |keys: &str| {
        let text = format!("[tls]\nmode = \"off\"\n{keys}[upstream]\nurl = \"http://127.0.0.1:3000\"\n{trusted}");
        read(&text).unwrap_or_else(|report| panic!("{report}"))
    };
    assert_eq!(valid("").tls, TlsMode::Off);
    let both = valid(
        "certificate = \"a\"\nprivate_key = \"b\"\nmodern = false\nhsts = \"off\"\nclient_auth = { mode = \"off\" }\n",
    );
    assert_eq!(both.files(), Vec::<PathBuf>::new(), "a file may serve both modes");
    let terminates = REQUIRED.replace("[tls]\n", "[tls]\nmode = \"terminate\"\n");
    assert_eq!(read(&terminates).unwrap_or_else(|report| panic!("{report}")), settings(""));
}

#[test]
fn an_app_behind_tls_is_told_from_one_that_is_not() {
    let app =
        |url: &str, keys: &str| read(&(REQUIRED.replace("http://127.0.0.1:3000", url) + keys)).expect("valid").upstream;
    let plain = app("https://app", "");
    assert_eq!(plain.target, UpstreamTarget::Tcp { host: "app".into(), port: 443 });
    assert_eq!(plain.to_string(), "https://app:443");
    let tls = plain.tls.clone().expect("https");
    assert_eq!((tls.ca, tls.identity, tls.server_name), (None, None, None));
    let named = app("https://[::1]:3443", "tls.server_name = \"App.internal\"\nsource_addresses = [\"::2\"]");
    assert_eq!(named.tls.clone().expect("https").server_name.as_deref(), Some("app.internal"));

    assert_snapshot!(of_app("http://app:3000", "tls = { ca = \"ca.pem\" }"), @r#"`upstream.tls` is for an app that is reached by https; this is http://app:3000 (write url = "https://…", or leave out `tls`)"#);
    assert_snapshot!(of_app("unix:/run/app.sock", "tls = {}"), @r#"`upstream.tls` is for an app that is reached by https; this is unix:/run/app.sock (write url = "https://…", or leave out `tls`)"#);
    assert_snapshot!(of_app("https://unix:/run/app.sock", ""), @r#"`upstream.url` cannot be a unix socket and have a scheme: TLS is not used on sockets (write "unix:/run/app.sock")"#);
    assert_snapshot!(of_app("wss://app", ""), @r#"`upstream.url` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" (write "https://app": WebSockets start as HTTP)"#);
    assert_snapshot!(of_app("https://app/", "tls = { certificate = \"a\" }"), @"`upstream.tls.private_key` is missing: the PEM file of the certificate's key (set `private_key` in [upstream.tls], or PULSEGATE__UPSTREAM__TLS__PRIVATE_KEY)");
    assert_snapshot!(of_app("https://app/", "tls = { private_key = \"a\", serve_name = \"b\" }"), @"
    `upstream.tls.certificate` is missing: the PEM file of the certificate that the key is for (set `certificate` in [upstream.tls], or PULSEGATE__UPSTREAM__TLS__CERTIFICATE)
    unknown key `serve_name` in [upstream.tls] (did you mean `server_name`?)
    ");
    assert_snapshot!(of_app("https://app/", "tls.server_name = \"*.app\""), @r#"`upstream.tls.server_name` must be the name or address in the app's certificate, such as "app.internal" (write one name that the wildcard stands for)"#);
    assert_snapshot!(of_app("https://app/", "tls.server_name = \"app:3443\""), @r#"`upstream.tls.server_name` must be a host alone, without a port (write "app")"#);
    assert_snapshot!(of_app("https://app/", "tls = true"), @"`upstream.tls` must be a table (write [upstream.tls] and its keys below it, or tls = { … })");
}

#[test]
fn connections_come_from_addresses_that_lead_to_the_app() {
    let sources = |sources: &str| of_app("http://127.0.0.1:3000", &format!("source_addresses = {sources}"));
    assert_snapshot!(sources("\"127.0.0.2\""), @r#"`upstream.source_addresses` must be a list (write ["127.0.0.2"])"#);
    assert_snapshot!(sources("7"), @"`upstream.source_addresses` must be a list");
    assert_snapshot!(sources("[\"127.0.0.2:80\"]"), @r#"`upstream.source_addresses[0]` must be an IP address such as "127.0.0.2""#);
    assert_snapshot!(sources("[\"0.0.0.0\", \"224.0.0.1\"]"), @"
    `upstream.source_addresses[0]` must be an address that a connection can come from
    `upstream.source_addresses[1]` must be an address that a connection can come from
    ");
    assert_snapshot!(sources("[\"127.0.0.2\", \"::1\"]"), @"`upstream.source_addresses` does not fit: no connection is possible from ::1 to 127.0.0.1");
    assert_snapshot!(of_app("unix:/run/app.sock", "source_addresses = [\"127.0.0.2\"]"), @"`upstream.source_addresses` is for TCP: a unix socket has no addresses (leave it out)");
}

#[test]
fn origins_are_origins() {
    let origin = |origin: &str| of(&format!("[origins]\nallow = [\"{origin}\"]"));
    assert_snapshot!(origin("https://app.example/"), @r#"`origins.allow[0]` must be an origin, which has no path (write "https://app.example")"#);
    assert_snapshot!(origin("https://app.example:8443/chat?a"), @r#"`origins.allow[0]` must be an origin, which has no path (write "https://app.example:8443")"#);
    assert_snapshot!(origin("app.example"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (write "https://app.example")"#);
    assert_snapshot!(origin("localhost:3000"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (write "http://localhost:3000")"#);
    assert_snapshot!(origin("wss://app.example"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (write "https://app.example": it is the page that has an origin)"#);
    assert_snapshot!(origin("*"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (to allow every page, leave out `allow`)"#);
    assert_snapshot!(origin("same_host"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (did you mean "same-host"?)"#);
    assert_snapshot!(origin("self"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null""#);
    assert_snapshot!(origin("https://*"), @r#"`origins.allow[0]` may have a wildcard only as its whole first label (as in "*.app.example")"#);
    assert_snapshot!(origin("https://app.*"), @r#"`origins.allow[0]` may have a wildcard only as its whole first label (as in "*.app.example")"#);
    assert_snapshot!(origin("https://app.example:99999"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null" (99999 is no port: ports go up to 65535)"#);
    assert_snapshot!(origin("https://me@app.example"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null""#);
    assert_snapshot!(origin("https://"), @r#"`origins.allow[0]` must be an origin such as "https://app.example", "https://*.app.example", "same-host" or "null""#);
    assert_snapshot!(origin("https://bücher.example"), @r#"`origins.allow[0]` must be a name as it stands in DNS (write it in Punycode, which begins with "xn--")"#);
    assert_snapshot!(of("[origins]\nallow = \"same-host\""), @r#"`origins.allow` must be a list (write ["same-host"])"#);
    let allowed = settings(
        "[origins]\nallow = [\"HTTPS://App.Example:443\", \"http://*.App.example:3000\", \"http://[::1]:80\", \"null\", \
         \"capacitor://localhost\"]",
    );
    let OriginPolicy::Only(allowed) = &*allowed.routes[0].origins else { panic!("{allowed:?}") };
    let written: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    let expected =
        ["https://app.example", "http://*.app.example:3000", "http://[::1]", "null", "capacitor://localhost"];
    assert_eq!(written, expected);
}

#[test]
fn no_limit_is_zero() {
    let limit = |text: &str| of(&format!("[limits]\n{text}"));
    assert_snapshot!(limit("connections = 0\nconnections_per_ip = 0\nhandshakes_per_ip = 0\nmessages_per_second = 0"), @r#"
    `limits.connections` must be a whole number from 1 to 100000000, or "off", or "auto" (write "off" for no limit)
    `limits.connections_per_ip` must be a whole number from 1 to 100000000, or "off" (write "off" for no limit)
    `limits.handshakes_per_ip` must be a whole number from 1 to 1000000, or "off" (write "off" for no limit)
    `limits.messages_per_second` must be a whole number from 1 to 1000000, or "off" (write "off" for no limit)
    "#);
    assert_snapshot!(limit("memory = 0\nstreams = 0\nwebsocket_streams = 0\nresets = 0"), @r#"
    `limits.memory` must be more than zero bytes, or "off"
    `limits.streams` must be a whole number from 1 to 10000 (the smallest is 1)
    `limits.websocket_streams` must be a whole number from 1 to 10000 (the smallest is 1)
    `limits.resets` must be a whole number from 1 to 1000000 (the smallest is 1)
    "#);
    assert_snapshot!(limit("streams = 10001"), @"`limits.streams` must be a whole number from 1 to 10000 (the largest is 10000)");
    assert_snapshot!(limit("connections = 10\nconnections_per_ip = 11"), @"`limits.connections_per_ip` does not fit: one address may not have more connections (11) than all together (10) (lower the one or raise the other)");
    let limits = settings("[limits]\nconnections = \"off\"\nhandshakes_per_ip = 7\nmemory = \"1GiB\"").limits;
    assert_eq!((limits.handshakes_per_ip, limits.memory), (Some(7), Some(1 << 30)));
    let connections = |value: &str| settings(&format!("[limits]\nconnections = {value}")).limits.connections;
    assert_eq!(connections("\"off\""), ConnectionLimit::Off);
    assert_eq!(connections("\"auto\""), ConnectionLimit::Auto);
    assert_eq!(connections("7"), ConnectionLimit::AtMost(7));
    assert_eq!(settings("").limits.connections, ConnectionLimit::Auto);
}

#[test]
fn routes_are_tried_by_host_and_then_by_path() {
    let route = |host: &str, path: &str| format!("[[route]]\nhost = \"{host}\"\npath = \"{path}\"\n");
    let text = "[[route]]\npath = \"/api/v1/long/\"\n".to_owned()
        + &route("*.example", "/api/v1/")
        + &route("*.app.example", "/")
        + &route("App.example", "/")
        + &route("[::1]", "/api/")
        + &route("*.app.example", "/api/");
    let tried: Vec<String> = settings(&text)
        .routes
        .iter()
        .map(|route| format!("{}{}", route.host.as_ref().map(HostPattern::to_string).unwrap_or_default(), route.path))
        .collect();
    let expected = [
        "[::1]/api/",
        "app.example/",
        "*.app.example/api/",
        "*.app.example/",
        "*.example/api/v1/",
        "/api/v1/long/",
        "/",
    ];
    assert_eq!(tried, expected);
    assert_snapshot!(of(&(route("App.example", "/a") + &route("app.example", "/a"))), @"`route[1].path` is that of an earlier route (make one route of both)");
    settings(&(route("a.example", "/a") + &route("b.example", "/a") + "[[route]]\npath = \"/a\""));
    assert_snapshot!(of(&route("https://app.example:8443", "/a")), @r#"`route[0].host` must be a host alone, without a scheme (write "app.example")"#);
    assert_snapshot!(of(&route("", "/a")), @r#"`route[0].host` must be a host such as "app.example" or "*.app.example""#);
}

#[test]
fn a_route_may_have_an_app_of_its_own() {
    let text = r#"
        tls = { ca = "/ca.pem" }
        response_timeout = "7s"
        source_addresses = ["127.0.0.2"]
        [[route]]
        path = "/same/"
        upstream = "https://app:3443"
        [[route]]
        path = "/patient/"
        upstream = { response_timeout = "10m", tls.server_name = "b" }
        [[route]]
        path = "/other/"
        upstream = "http://other:3000"
        [[route]]
        path = "/others/"
        upstream = { url = "http://other:3000" }
        [[route]]
        path = "/spelt-out/"
        upstream = { url = "https://app:3443", tls.ca = "/ca.pem", source_addresses = ["127.0.0.2"] }
        "#;
    let settings = read(&(REQUIRED.replace("http://127.0.0.1:3000", "https://app:3443") + text));
    let settings = settings.unwrap_or_else(|report| panic!("{report}"));
    let of = |path: &str| &settings.routes.iter().find(|route| &*route.path == path).expect(path).upstream;
    assert_eq!(of("/patient/").response_timeout, Duration::from_secs(600));
    assert_eq!(of("/patient/").target, settings.upstream.target);
    let tls = of("/patient/").tls.clone().expect("https, as for all");
    assert_eq!((tls.ca, tls.server_name.as_deref()), (Some("/ca.pem".into()), Some("b")));
    assert_eq!(of("/other/").response_timeout, Duration::from_secs(7), "timing is inherited");
    assert_eq!((of("/other/").tls.as_ref(), of("/other/").source_addresses.len()), (None, 0), "the place is not");
    assert_eq!(of("/same/").tls.clone().expect("https").ca, None, "a url of its own has a TLS of its own");
    assert!(Arc::ptr_eq(of("/other/"), of("/others/")), "equal apps are one");
    assert!(Arc::ptr_eq(of("/spelt-out/"), &settings.upstream));
    assert_eq!(settings.upstreams().len(), 4);

    let wrong =
        |upstream: &str| super::messages(&format!("[[route]]\npath = \"/a\"\nupstream = {upstream}")).join("\n");
    assert_snapshot!(wrong("7"), @r#"`route[0].upstream` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" or a table (write "http://127.0.0.1:7")"#);
    assert_snapshot!(wrong("\"localhost:3000\""), @r#"`route[0].upstream` must be "http://host:port", "https://host:port" or "unix:/path/to/socket" or a table (write "http://localhost:3000")"#);
    assert_snapshot!(wrong("{ url = \"http://a\", tls = {} }"), @r#"`route[0].upstream.tls` is for an app that is reached by https; this is http://a:80 (write url = "https://…", or leave out `tls`)"#);
    assert_snapshot!(wrong("{ tls = { ca = \"a\" } }"), @r#"`route[0].upstream.tls` is for an app that is reached by https; this is http://127.0.0.1:3000 (write url = "https://…", or leave out `tls`)"#);
    assert_snapshot!(wrong("{ give_up = \"1s\", origin = 1 }"), @r#"
    `route[0].upstream.give_up` does not fit: give_up (1s) must be at least interval + timeout (25s) (set give_up = "25s" or more, or shorten the other two)
    unknown key `origin` in [route.upstream] (known here: connect_timeout, give_up, interval, probe, proxy_protocol, response_timeout, source_addresses, timeout, tls, url)
    "#);
}

#[test]
fn a_route_may_have_origins_and_limits_of_its_own() {
    let text = "[origins]\nallow = [\"same-host\"]\n[limits]\nmessages_per_second = 5\n\
                [[route]]\npath = \"/none/\"\norigins.allow = []\n[[route]]\npath = \"/fast/\"\nlimits = { messages_per_second = \"off\" }";
    let settings = settings(text);
    let [none, fast, default] = settings.routes.as_slice() else { panic!("{settings:?}") };
    assert_eq!(*none.origins, OriginPolicy::Only(Vec::new()));
    assert!(Arc::ptr_eq(&fast.origins, &default.origins));
    let rates = [none, fast, default].map(|route| route.limits.messages_per_second);
    assert_eq!(rates, [Some(5), None, Some(5)]);
    assert_eq!(settings.open_routes().count(), 0);
}
