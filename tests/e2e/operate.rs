//! The sections for operators.

use pulsegate_test_kit::proxy::{Config, Proxy};

use crate::PULSEGATE;

#[tokio::test]
async fn a_proxy_with_every_key_of_operation_starts_and_ends_in_order() {
    let config = Config::to(PULSEGATE, "http://127.0.0.1:9")
        .drain("delay = \"0s\"")
        .drain("window = \"10ms\"")
        .drain("code = 1013")
        .drain("max_connection_age = \"1h\"")
        .admin("health = \"127.0.0.1:0\"")
        .admin("socket = \"127.0.0.1:0\"")
        .admin("tls = true")
        .admin("closed_sessions = 10");
    Proxy::start(config).await.finish().await;
}
