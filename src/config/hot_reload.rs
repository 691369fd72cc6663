//! New settings for a running process: those it adopts, and those that wait for the next start.

use std::sync::Arc;

use super::schema::{StartValues, Visitor};
use super::settings::{Settings, TlsMode};
use super::{listener, operations};

impl Settings {
    /// Gives the settings that only the next start changes their values in `running`. Returns the keys whose new values
    /// wait for it.
    ///
    /// Apps that are equal in both are one `Arc` with `running`'s.
    pub fn follow(&mut self, running: &Self) -> Vec<Box<str>> {
        self.share_upstreams(running);
        let mut waiting = Vec::new();
        hold("listen", listener::visit_listen, &mut self.listen, &running.listen, &mut waiting);
        if self.tls.terminate().is_some() != running.tls.terminate().is_some() {
            keep(&mut self.tls, &running.tls, "tls.mode", &mut waiting);
            if running.tls == TlsMode::Off {
                // The mode in force serves no other peers, and the new one may do without the list.
                let (new, running) = (&mut self.forwarded.trusted_proxies, &running.forwarded.trusted_proxies);
                keep(new, running, "forwarded.trusted_proxies", &mut waiting);
            }
        }
        hold("log", operations::visit_log, &mut self.log, &running.log, &mut waiting);
        let before = waiting.len();
        hold("admin", operations::visit_admin, &mut self.admin, &running.admin, &mut waiting);
        // A token was chosen for the socket beside it, and follows only while that is unchanged.
        if waiting.len() > before {
            self.admin.token.clone_from(&running.admin.token);
        }
        hold("otel", operations::visit_otel, &mut self.otel, &running.otel, &mut waiting);
        waiting
    }

    fn share_upstreams(&mut self, running: &Self) {
        let known: Vec<_> = running.upstreams().into_iter().map(Arc::clone).collect();
        let share = |app: &mut Arc<_>| {
            if let Some(known) = known.iter().find(|known| **known == *app) {
                *app = Arc::clone(known);
            }
        };
        share(&mut self.upstream);
        for route in &mut self.routes {
            share(&mut Arc::make_mut(route).upstream);
        }
    }
}

/// Gives the keys of `section` that only the next start changes their values in `running`, and adds those that differ to
/// `waiting`.
fn hold<S: Clone>(
    section: &str,
    visit: fn(&mut Visitor<'_>, &mut S),
    new: &mut S,
    running: &S,
    waiting: &mut Vec<Box<str>>,
) {
    let mut held = StartValues::default();
    visit(&mut Visitor::Record(&mut held), &mut running.clone());
    visit(&mut Visitor::Restore(&mut held), new);
    waiting.extend(held.changed().into_iter().map(|key| format!("{section}.{key}").into()));
}

/// Gives `key`, which no declaration marks, its value in `running`.
fn keep<T: Clone + PartialEq>(new: &mut T, running: &T, key: &str, waiting: &mut Vec<Box<str>>) {
    if new != running {
        new.clone_from(running);
        waiting.push(key.into());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Overrides, from_str, json_schema};

    fn settings(listen: &str, sections: &str) -> Settings {
        let text = format!(
            "[listen]\n{listen}\n[tls]\ncertificate = \"a\"\nprivate_key = \"b\"\n\
             [upstream]\nurl = \"http://127.0.0.1:1\"\n{sections}"
        );
        from_str(Path::new("proxy.toml"), &text, &Environment::default(), &Overrides::default())
            .unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn what_needs_a_restart_is_named_and_stays_as_it_was() {
        let running = settings("address = \"127.0.0.1:1\"\nworkers = 2", "[heartbeat]\ninterval = \"10s\"");
        let mut new = settings(
            "address = \"127.0.0.1:2\"\nworkers = 3\nredirect = \"127.0.0.1:3\"",
            "[heartbeat]\ninterval = \"20s\"\n[log]\nformat = \"json\"\nlevel = \"warn\"",
        );
        let level = new.log.level.clone();
        let waiting = new.follow(&running);
        let waiting: Vec<&str> = waiting.iter().map(|key| &**key).collect();
        assert_eq!(waiting, ["listen.address", "listen.workers", "listen.redirect", "log.format"]);
        assert_eq!((&new.listen, new.log.format), (&running.listen, running.log.format));
        assert_eq!(new.log.level, level, "the level is hot");
        assert_ne!(new.routes, running.routes, "the heartbeat is");
    }

    #[test]
    fn every_key_that_is_declared_so_waits_for_the_next_start_and_no_other() {
        let has_otel = cfg!(feature = "otel");
        let otel = if has_otel { "[otel]\nendpoint = \"http://127.0.0.1:1\"" } else { "" };
        let running = settings("", "");
        let mut new = settings(
            "address = \"127.0.0.1:2\"\nworkers = 1023\nredirect = \"127.0.0.1:3\"\nhttp2 = \"off\"",
            &format!(
                "[log]\nformat = \"json\"\nlevel = \"warn\"\n[drain]\ndelay = \"1s\"\n[admin]\nhealth = \"127.0.0.1:4\"\n\
                 socket = \"127.0.0.1:5\"\ntls = true\nclosed_sessions = 7\n{otel}"
            ),
        );
        let waiting: BTreeSet<String> = new.follow(&running).iter().map(ToString::to_string).collect();
        let mut declared = BTreeSet::new();
        let schema = json_schema();
        for (section, table) in schema["properties"].as_object().expect("sections") {
            for (key, described) in table["properties"].as_object().into_iter().flatten() {
                if described["description"].as_str().is_some_and(|text| text.ends_with("at the next start.")) {
                    declared.insert(format!("{section}.{key}"));
                }
            }
        }
        // The mode of TLS takes other keys with it.
        assert!(declared.remove("tls.mode") && (has_otel || declared.remove("otel.endpoint")));
        assert_eq!(waiting, declared);
    }

    #[test]
    fn the_mode_of_tls_waits_and_what_belongs_to_it() {
        let terminating = settings("", "");
        let off = || {
            let text = "[tls]\nmode = \"off\"\n[upstream]\nurl = \"http://127.0.0.1:1\"\n\
                        [forwarded]\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
            from_str(Path::new("proxy.toml"), text, &Environment::default(), &Overrides::default())
                .unwrap_or_else(|report| panic!("{report}"))
        };
        let follow = |mut new: Settings, running: &Settings| {
            let waiting = new.follow(running);
            (waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), new)
        };
        let (waiting, new) = follow(off(), &terminating);
        assert_eq!((&*waiting, &new.tls), ("tls.mode", &terminating.tls));
        let (waiting, new) = follow(terminating, &off());
        assert_eq!((&*waiting, &new.tls), ("tls.mode forwarded.trusted_proxies", &TlsMode::Off));
        assert_eq!(new.forwarded.trusted_proxies, off().forwarded.trusted_proxies);
        assert_eq!(follow(off(), &off()).0, "");
    }

    #[test]
    fn equal_settings_follow_without_a_word_and_share_their_apps() {
        let route = "[[route]]\npath = \"/x\"\nupstream = \"http://127.0.0.1:2\"";
        let running = settings("", route);
        let mut same = settings("", route);
        assert!(same.follow(&running).is_empty());
        assert_eq!(same, running);
        assert!(Arc::ptr_eq(&same.upstream, &running.upstream));
        assert!(Arc::ptr_eq(&same.routes[0].upstream, &running.routes[0].upstream));
        let mut other = settings("", "[[route]]\npath = \"/x\"\nupstream = \"http://127.0.0.1:3\"");
        other.follow(&running);
        assert!(Arc::ptr_eq(&other.upstream, &running.upstream));
        assert!(!Arc::ptr_eq(&other.routes[0].upstream, &running.routes[0].upstream));
        // Every route's app is one of the settings' apps, by its address.
        assert_eq!(other.upstreams().len(), 2);
    }
}
