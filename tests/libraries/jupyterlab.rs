//! `JupyterLab`, whose connections to kernels and terminals have no heartbeat of their own. 1001 is final for both.

use crate::libraries::library::{Auto, BUT_AFTER_1001, Hung, Library};
use crate::libraries::matrix::BOUND;

pub(crate) const KERNEL: Library = Library {
    title: "JupyterLab, kernels",
    packages: &["@jupyterlab/services"],
    folder: "jupyterlab",
    path: "/",
    flags: &[],
    profile: "",
    mode: "protocol",
    auto: Auto::CannotTell,
    heartbeat: "",
    hung: Hung::Process { bound: "`interval` + `timeout`", tried: BOUND },
    app_hears: r#"{ "code": 4408, "reason": "heartbeat timeout" }"#,
    hears_miss: r#"{ "code": 1012, "reason": "heartbeat timeout" }"#,
    hears_restart: r#"{ "code": 1012, "reason": "service restart" }"#,
    comes_back: BUT_AFTER_1001,
};

pub(crate) const TERMINAL: Library = Library { title: "JupyterLab, terminals", flags: &["--terminal"], ..KERNEL };

mod kernel {
    use super::KERNEL;

    #[tokio::test]
    async fn under_its_profile() {
        crate::libraries::matrix::under_its_profile(&KERNEL).await;
    }

    /// Tests a short absence of the proxy only: after a refusal the page waits 10 to 30 s before it requests its kernel
    /// again.
    #[tokio::test]
    async fn sees_a_restart() {
        crate::libraries::matrix::sees_a_restart(&KERNEL).await;
    }

    #[tokio::test]
    async fn s71_comes_back_by_itself_or_not() {
        crate::libraries::returns::after_each_end(&KERNEL).await;
    }
}

mod terminal {
    crate::libraries::matrix::tests!(super::TERMINAL);
}
