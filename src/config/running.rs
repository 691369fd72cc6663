//! New settings for a process that runs: what it can take up, and what only the next start can.

use std::sync::Arc;

use super::settings::{Admin, Listen, Log, Settings, TlsMode};

impl Settings {
    /// Turns freshly loaded settings into those that can follow `running`: what a process cannot change while it runs
    /// is as before. Gives the keys that say something else and wait for the next start.
    ///
    /// Apps that are equal in both are one `Arc` with `running`'s.
    pub fn follow(&mut self, running: &Self) -> Vec<Box<str>> {
        self.share_upstreams(running);
        let mut waiting = Vec::new();
        let Listen { address, workers, redirect, .. } = &mut self.listen;
        keep(address, &running.listen.address, "listen.address", &mut waiting);
        keep(workers, &running.listen.workers, "listen.workers", &mut waiting);
        keep(redirect, &running.listen.redirect, "listen.redirect", &mut waiting);
        if self.tls.terminate().is_some() != running.tls.terminate().is_some() {
            keep(&mut self.tls, &running.tls, "tls.mode", &mut waiting);
            if running.tls == TlsMode::Off {
                // The mode in force serves no other peers, and the new one may do without the list.
                let (new, running) = (&mut self.forwarded.trusted_proxies, &running.forwarded.trusted_proxies);
                keep(new, running, "forwarded.trusted_proxies", &mut waiting);
            }
        }
        let Log { format, .. } = &mut self.log;
        keep(format, &running.log.format, "log.format", &mut waiting);
        let token = self.admin.token.clone();
        let Admin { health, socket, tls, closed_sessions, .. } = &mut self.admin;
        let before = waiting.len();
        keep(health, &running.admin.health, "admin.health", &mut waiting);
        keep(socket, &running.admin.socket, "admin.socket", &mut waiting);
        keep(tls, &running.admin.tls, "admin.tls", &mut waiting);
        keep(closed_sessions, &running.admin.closed_sessions, "admin.closed_sessions", &mut waiting);
        // What is asked of those who come was chosen for the socket beside it. By itself it may be another.
        self.admin.token = if waiting.len() == before { token } else { running.admin.token.clone() };
        keep(&mut self.otel, &running.otel, "otel.endpoint", &mut waiting);
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

fn keep<T: Clone + PartialEq>(new: &mut T, running: &T, key: &str, waiting: &mut Vec<Box<str>>) {
    if new != running {
        new.clone_from(running);
        waiting.push(key.into());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Environment, Overrides, from_str};

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
