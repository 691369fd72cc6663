//! The rows, in the order of the table. The macro makes a test of each, so that no row of the table is untested.

use std::time::Duration;

use crate::works_with::row::{Client, Returns, Row, Setting, Vanishes, Without};
use crate::works_with::scenario;

macro_rules! apps {
    ($($test:ident: $app:expr;)*) => {
        /// Every app that is tested.
        pub(crate) const APPS: &[&Row] = &[$(&$app),*];

        $(
            #[tokio::test]
            async fn $test() {
                scenario::works(&$app).await;
            }
        )*
    };
}

apps! {
    express_ws: EXPRESS_WS;
    fastify_websocket: FASTIFY;
    nest: NEST;
    trpc: TRPC;
    y_websocket: Y_WEBSOCKET;
    colyseus: COLYSEUS;
    sockjs_websocket: SOCKJS;
    sockjs_xhr_streaming: SOCKJS_XHR_STREAMING;
    sockjs_eventsource: SOCKJS_EVENTSOURCE;
    sockjs_xhr_polling: SOCKJS_XHR_POLLING;
    vite: VITE;
    webpack_dev_server: WEBPACK_DEV_SERVER;
}

const ECHO: Client = Client::Node { script: "page.js", path: "/echo", flags: &[] };

const LOST: &str = r#"{ "code": 4408, "reason": "heartbeat timeout" }"#;

const EXPRESS_WS: Row = Row {
    title: "express-ws",
    packages: &["express-ws", "express"],
    folder: "express_ws",
    transport: "WebSocket",
    client: ECHO,
    vanishes: Vanishes::Stopped,
    close: LOST,
    returns: Returns::LeavesItToYou,
    settings: &[Setting {
        name: "trust proxy",
        shown: "`app.set('trust proxy', 'loopback')`, for `request.secure` and `request.ip`",
        without: Without::Reports {
            without: r#"{ "secure": false, "protocol": "http" }"#,
            with: r#"{ "secure": true, "protocol": "https" }"#,
        },
    }],
};

const FASTIFY: Row = Row {
    title: "Fastify",
    packages: &["@fastify/websocket", "fastify"],
    folder: "fastify",
    settings: &[Setting {
        name: "trustProxy",
        shown: "`Fastify({ trustProxy: 'loopback' })`, for `request.protocol` and `request.ip`",
        without: Without::Reports { without: r#"{ "protocol": "http" }"#, with: r#"{ "protocol": "https" }"# },
    }],
    ..EXPRESS_WS
};

const NEST: Row = Row {
    title: "NestJS, `WsAdapter`",
    packages: &["@nestjs/platform-ws", "@nestjs/core"],
    folder: "nest",
    client: Client::Node { script: "nest/page.js", path: "/echo", flags: &[] },
    close: "{}",
    ..EXPRESS_WS
};

const TRPC: Row = Row {
    title: "tRPC, `wsLink`",
    packages: &["@trpc/server", "@trpc/client"],
    folder: "trpc",
    client: Client::Node { script: "trpc/page.js", path: "/", flags: &[] },
    returns: Returns::Reconnects,
    settings: &[],
    ..EXPRESS_WS
};

const Y_WEBSOCKET: Row = Row {
    title: "y-websocket",
    packages: &["y-websocket", "@y/websocket-server"],
    folder: "yjs",
    client: Client::Node { script: "yjs/page.js", path: "/", flags: &[] },
    close: r#"{ "code": 4408, "reason": "heartbeat timeout", "connections": 0, "present": 0 }"#,
    ..TRPC
};

const COLYSEUS: Row = Row {
    title: "Colyseus",
    packages: &["@colyseus/core", "@colyseus/ws-transport", "colyseus.js"],
    folder: "colyseus",
    client: Client::Node { script: "colyseus/page.js", path: "/", flags: &[] },
    close: r#"{ "consented": false }"#,
    returns: Returns::ByCall("client.reconnect(token)"),
    ..TRPC
};

const SOCKJS: Row = Row {
    title: "SockJS, websocket",
    packages: &["sockjs", "sockjs-client"],
    folder: "sockjs",
    client: Client::Node { script: "sockjs/page.js", path: "/echo", flags: &["websocket"] },
    close: "{}",
    returns: Returns::LeavesItToYou,
    ..TRPC
};

const SOCKJS_XHR_STREAMING: Row = Row {
    title: "SockJS, xhr-streaming",
    transport: "plain requests",
    client: Client::Node { script: "sockjs/page.js", path: "/echo", flags: &["xhr-streaming"] },
    // The default of `disconnect_delay`.
    vanishes: Vanishes::Killed { app_notices: Duration::from_secs(5) },
    returns: Returns::NoWebSocket,
    ..SOCKJS
};

const SOCKJS_EVENTSOURCE: Row = Row {
    title: "SockJS, eventsource",
    client: Client::Node { script: "sockjs/page.js", path: "/echo", flags: &["eventsource"] },
    ..SOCKJS_XHR_STREAMING
};

const SOCKJS_XHR_POLLING: Row = Row {
    title: "SockJS, xhr-polling",
    client: Client::Node { script: "sockjs/page.js", path: "/echo", flags: &["xhr-polling"] },
    ..SOCKJS_XHR_STREAMING
};

const VITE: Row = Row {
    title: "Vite, HMR",
    packages: &["vite"],
    folder: "vite",
    transport: "WebSocket over HTTP/2",
    client: Client::Chromium,
    vanishes: Vanishes::Stopped,
    close: LOST,
    returns: Returns::Reloads,
    settings: &[Setting {
        name: "server.allowedHosts",
        shown: "`server.allowedHosts: ['app.example']` (else 403, unless the host is `localhost`)",
        without: Without::Status(403),
    }],
};

const WEBPACK_DEV_SERVER: Row = Row {
    title: "webpack-dev-server, HMR",
    packages: &["webpack-dev-server", "webpack"],
    folder: "webpack_dev_server",
    returns: Returns::Reconnects,
    settings: &[
        Setting {
            name: "allowedHosts",
            shown: "`allowedHosts: ['app.example']` (else 403, unless the host is `localhost`)",
            without: Without::Status(403),
        },
        Setting {
            name: "client.webSocketURL",
            shown: "`client.webSocketURL: 'auto://0.0.0.0:0/ws'` \
                    (else the page dials `ws://` at the dev server's own host and port)",
            without: Without::NoWebSocket,
        },
    ],
    ..VITE
};
