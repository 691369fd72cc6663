//! The client of an app, in Node or in Chromium.

use std::ops::Deref;

use pulsegate_test_kit::browser::Browser;
use pulsegate_test_kit::node::{self, project};
use pulsegate_test_kit::process::{Process, send};
use pulsegate_test_kit::proxy::Proxy;
use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;

use crate::works_with::row::{Client, Row};

/// The public name of a page. It leads to loopback in its browser alone.
const HOST: &str = "app.test";

/// A running client.
#[derive(Debug)]
pub(crate) enum Running {
    Node(Process),
    Chromium(Browser),
}

impl Running {
    /// Starts the client of `app`. Does not wait.
    pub(crate) fn start(app: &Row, proxy: &Proxy) -> Self {
        match app.client {
            Client::Node { script, path, flags } => {
                let mut command = Command::new("node");
                command.arg(script).arg(proxy.wss(path)).args(flags);
                command.env("NODE_EXTRA_CA_CERTS", &proxy.pki.ca).current_dir(project("works_with"));
                Self::Node(Process::start(script, &mut command))
            }
            Client::Chromium => Self::Chromium(Browser::visit_as(HOST, &proxy.https("/"), &proxy.pki.ca)),
        }
    }

    /// Causes the exchange of `text`, which the client reports as its `message`: an echo, or an update of the page.
    pub(crate) async fn exchange(&mut self, server: &mut node::NodeApp, text: &str) {
        match self {
            Self::Node(page) => page.write_line(&json!({ "send": text })).await,
            Self::Chromium(_) => server.write_line(&json!({ "edit": text })).await,
        }
        self.event("message", |event| event["data"] == text).await;
    }

    /// Stops the process that holds the sockets.
    pub(crate) fn stop(&self) {
        match self {
            Self::Node(page) => page.stop(),
            Self::Chromium(browser) => send(browser.network_service(), Signal::STOP),
        }
    }

    /// Continues what [`Self::stop`] stopped.
    pub(crate) fn resume(&self) {
        match self {
            Self::Node(page) => page.resume(),
            Self::Chromium(browser) => send(browser.network_service(), Signal::CONT),
        }
    }

    /// Kills a client in Node.
    pub(crate) async fn kill(&mut self) {
        match self {
            Self::Node(page) => page.kill().await,
            Self::Chromium(_) => panic!("a browser is stopped, not killed"),
        }
    }
}

impl Deref for Running {
    type Target = Process;

    fn deref(&self) -> &Process {
        match self {
            Self::Node(page) => page,
            Self::Chromium(browser) => browser,
        }
    }
}
