//! Detection of a session's profile from its upgrade request.

use super::Builtin;

/// The parts of an upgrade request that identify the profile of its session.
#[derive(Clone, Copy, Debug)]
pub struct Signs<'a> {
    /// The subprotocol that the app selected, or those that the client offers.
    pub subprotocols: &'a [&'a str],
    /// The request path.
    pub path: &'a str,
    /// The query string.
    pub query: &'a str,
}

/// All signs that can be detected, in the words of [`detect`].
pub const DETECTABLE: [(Builtin, &str); 9] = [
    (Builtin::GraphqlTransportWs, "subprotocol graphql-transport-ws"),
    (Builtin::GraphqlWs, "subprotocol graphql-ws"),
    (Builtin::Stomp, "subprotocol of STOMP"),
    (Builtin::Mqtt, "subprotocol of MQTT"),
    (Builtin::Phoenix, "subprotocol phoenix"),
    (Builtin::ActionCable, "subprotocol actioncable-v1-json"),
    (Builtin::EngineIo, "query EIO=4&transport=websocket"),
    (Builtin::Phoenix, "path …/websocket, query vsn"),
    (Builtin::Pusher, "path …/app/…, query protocol"),
];

/// Returns the profile of a session and the sign that identifies it.
pub fn detect(signs: &Signs<'_>) -> Option<(Builtin, &'static str)> {
    signs.subprotocols.iter().find_map(|name| by_subprotocol(name)).or_else(|| by_target(signs))
}

fn by_subprotocol(name: &str) -> Option<(Builtin, &'static str)> {
    Some(match name {
        "graphql-transport-ws" => (Builtin::GraphqlTransportWs, "subprotocol graphql-transport-ws"),
        "graphql-ws" => (Builtin::GraphqlWs, "subprotocol graphql-ws"),
        "v10.stomp" | "v11.stomp" | "v12.stomp" => (Builtin::Stomp, "subprotocol of STOMP"),
        "mqtt" | "mqttv3.1" => (Builtin::Mqtt, "subprotocol of MQTT"),
        "phoenix" => (Builtin::Phoenix, "subprotocol phoenix"),
        "actioncable-v1-json" => (Builtin::ActionCable, "subprotocol actioncable-v1-json"),
        _ => return None,
    })
}

fn by_target(signs: &Signs<'_>) -> Option<(Builtin, &'static str)> {
    let value = |name: &str| {
        let mut pairs = signs.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if value("EIO") == Some("4") && value("transport") == Some("websocket") {
        return Some((Builtin::EngineIo, "query EIO=4&transport=websocket"));
    }
    if signs.path.ends_with("/websocket") && value("vsn").is_some() {
        return Some((Builtin::Phoenix, "path …/websocket, query vsn"));
    }
    // With a prefix too, as Laravel Reverb is often deployed.
    let parent = signs.path.rsplit('/').nth(1);
    if parent == Some("app") && value("protocol").is_some() {
        return Some((Builtin::Pusher, "path …/app/…, query protocol"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(subprotocols: &[&str], target: &str) -> Option<&'static str> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        detect(&Signs { subprotocols, path, query }).map(|(builtin, _)| builtin.name())
    }

    #[test]
    fn a_subprotocol_tells() {
        for (name, profile) in [
            ("graphql-transport-ws", "graphql-transport-ws"),
            ("graphql-ws", "graphql-ws"),
            ("v12.stomp", "stomp"),
            ("mqtt", "mqtt"),
            ("phoenix", "phoenix"),
            ("actioncable-v1-json", "actioncable"),
        ] {
            assert_eq!(seen(&["chat", name], "/anywhere"), Some(profile));
        }
    }

    #[test]
    fn a_target_tells() {
        for (target, profile) in [
            ("/socket.io/?EIO=4&transport=websocket", "engine.io"),
            ("/any/path?x=1&transport=websocket&sid=abc&EIO=4", "engine.io"),
            ("/socket/websocket?token=t&vsn=2.0.0", "phoenix"),
            ("/app/key?protocol=7&client=js&version=8.4.0&flash=false", "pusher"),
            ("/reverb/app/key?protocol=7&client=js", "pusher"),
        ] {
            assert_eq!(seen(&[], target), Some(profile), "{target}");
        }
    }

    #[test]
    fn what_can_be_recognised_is_listed_and_nothing_else() {
        let upgrades = [
            ("graphql-transport-ws", "", ""),
            ("graphql-ws", "", ""),
            ("v11.stomp", "", ""),
            ("mqttv3.1", "", ""),
            ("phoenix", "", ""),
            ("actioncable-v1-json", "", ""),
            ("", "/", "EIO=4&transport=websocket"),
            ("", "/socket/websocket", "vsn=2.0.0"),
            ("", "/app/key", "protocol=7"),
        ];
        let recognised = upgrades.map(|(name, path, query)| detect(&Signs { subprotocols: &[name], path, query }));
        assert_eq!(recognised, DETECTABLE.map(Some));
    }

    #[test]
    fn what_shows_nothing_is_not_guessed() {
        for target in [
            "/",
            "/socket.io/?EIO=3&transport=websocket",
            "/socket.io/?EIO=4&transport=polling",
            "/live/websocket",
            "/app/key",
            "/app?protocol=7",
            "/chat?protocol=7",
            "/?xEIO=4&transport=websocket",
        ] {
            assert_eq!(seen(&["chat", "GraphQL-WS"], target), None, "{target}");
        }
    }
}
