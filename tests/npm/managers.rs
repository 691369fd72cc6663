//! Installation by npm, pnpm, Yarn and bun.

use super::packed::{other_package, other_processor, package};
use super::running::ends_by_sigterm;
use super::sandbox::{Node, Sandbox, tools};

const PNPM: &str = "pnpm/bin/pnpm.cjs";
const YARN: &str = "@yarnpkg/cli-dist/bin/yarn.js";
const BUN: &str = ".bin/bun";
const INSTALLED: &str = "project/node_modules/.bin/pulsegate";

/// Every npm of the tests, as its `npm-cli.js`, with the Node to run it with.
const NPMS: [(&str, Node); 2] = [("npm-10/bin/npm-cli.js", Node::Spawning), ("npm-11/bin/npm-cli.js", Node::Replacing)];

/// Fails unless the launcher and the package of this platform were fetched, and nothing else.
#[track_caller]
fn fetched_its_own_platform(sandbox: &Sandbox) {
    assert_eq!(sandbox.fetched(), [package(), "pulsegate".to_owned()]);
}

#[tokio::test]
async fn npm_installs_the_program_of_this_platform() {
    for (npm, node) in NPMS {
        for flags in [&[][..], &["--ignore-scripts"]] {
            let sandbox = Sandbox::new(node).await;
            let mut install = sandbox.tool(npm);
            install.args(["install", "pulsegate"]).args(flags);
            sandbox.succeeds(install).await;
            fetched_its_own_platform(&sandbox);
            sandbox.prints_its_version(sandbox.command(sandbox.path(INSTALLED))).await;
            let missing = sandbox.path("project/node_modules").join(other_package());
            assert!(!missing.exists(), "{} is for another processor", missing.display());
        }
    }
}

#[tokio::test]
async fn pnpm_installs_the_program_of_this_platform() {
    let sandbox = Sandbox::new(Node::Replacing).await;
    let mut install = sandbox.tool(PNPM);
    install.args(["add", "pulsegate"]);
    sandbox.succeeds(install).await;
    fetched_its_own_platform(&sandbox);
    let exec = || {
        let mut exec = sandbox.tool(PNPM);
        exec.args(["exec", "pulsegate"]);
        exec
    };
    sandbox.prints_its_version(exec()).await;
    ends_by_sigterm(&sandbox, exec()).await;
}

#[tokio::test]
async fn pnpm_runs_it_without_a_project() {
    let sandbox = Sandbox::new(Node::Spawning).await;
    let mut dlx = sandbox.tool(PNPM);
    dlx.args(["dlx", "pulsegate"]);
    sandbox.prints_its_version(dlx).await;
    fetched_its_own_platform(&sandbox);
}

/// Writes what makes Yarn use the registry, with Plug'n'Play and caches in the sandbox.
fn prepare_yarn(sandbox: &Sandbox) {
    let lines = [
        &format!("npmRegistryServer: \"{}\"", sandbox.url()),
        "unsafeHttpWhitelist: [\"127.0.0.1\"]",
        "nodeLinker: pnp",
        "enableGlobalCache: false",
    ];
    sandbox.write("project/.yarnrc.yml", &lines.join("\n"));
    sandbox.write("project/yarn.lock", "");
}

#[tokio::test]
async fn yarn_with_plug_n_play_installs_the_program_of_this_platform() {
    for node in [Node::Spawning, Node::Replacing] {
        let sandbox = Sandbox::new(node).await;
        prepare_yarn(&sandbox);
        let mut install = sandbox.tool(YARN);
        install.args(["add", "pulsegate"]);
        sandbox.succeeds(install).await;
        fetched_its_own_platform(&sandbox);
        assert!(sandbox.path("project/.pnp.cjs").exists() && !sandbox.path("project/node_modules").exists());
        let run = || {
            let mut run = sandbox.tool(YARN);
            run.arg("pulsegate");
            run
        };
        sandbox.prints_its_version(run()).await;
        ends_by_sigterm(&sandbox, run()).await;
    }
}

#[tokio::test]
async fn bun_installs_the_program_of_this_platform() {
    let sandbox = Sandbox::new(Node::Spawning).await;
    let bun = tools().join(BUN);
    let mut install = sandbox.command(&bun);
    install.args(["add", "pulsegate"]);
    sandbox.succeeds(install).await;
    fetched_its_own_platform(&sandbox);
    // With Node, as the launcher's first line asks, and with bun in its place.
    for flags in [&["run"][..], &["run", "--bun"]] {
        let run = || {
            let mut run = sandbox.command(&bun);
            run.args(flags).arg("pulsegate");
            run
        };
        sandbox.prints_its_version(run()).await;
        ends_by_sigterm(&sandbox, run()).await;
    }
}

#[tokio::test]
async fn bunx_runs_it_without_a_project() {
    let sandbox = Sandbox::new(Node::Spawning).await;
    let mut bunx = sandbox.command(tools().join(BUN));
    bunx.args(["x", "pulsegate"]);
    sandbox.prints_its_version(bunx).await;
    fetched_its_own_platform(&sandbox);
}

#[tokio::test]
async fn without_optional_dependencies_the_launcher_names_the_remedy_which_helps() {
    for (npm, node) in NPMS {
        let sandbox = Sandbox::new(node).await;
        let mut install = sandbox.tool(npm);
        install.args(["install", "pulsegate", "--omit=optional"]);
        sandbox.succeeds(install).await;
        let mut refused = sandbox.command(sandbox.path(INSTALLED));
        refused.arg("dev");
        let missing = format!("the package {} is missing (optional dependencies were left out", package());
        let remedy = "npm install --include=optional";
        sandbox.run(refused).await.failed(1, &[&missing, remedy, "PULSEGATE_BINARY"]);

        let mut again = sandbox.tool(npm);
        again.args(remedy.split(' ').skip(1));
        sandbox.succeeds(again).await;
        sandbox.prints_its_version(sandbox.command(sandbox.path(INSTALLED))).await;
    }
}

#[tokio::test]
async fn an_installation_for_another_processor_is_recognised() {
    let sandbox = Sandbox::new(Node::Spawning).await;
    let mut install = sandbox.tool(NPMS[0].0);
    install.args(["install", "pulsegate", "--os=linux", "--cpu", other_processor()]);
    sandbox.succeeds(install).await;
    let refused = sandbox.run(sandbox.command(sandbox.path(INSTALLED))).await;
    let instead = format!("({} is there instead: it was installed on another system)", other_package());
    refused.failed(1, &[&format!("the package {} is missing", package()), &instead, "install again on this system"]);
}
