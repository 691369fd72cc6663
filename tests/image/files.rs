//! What is in the image, and what cannot be made into one.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use serde_json::json;

use super::built::{build, image, static_program, work};
use crate::PULSEGATE;
use crate::deploy::made::{command, names, refuse, repository, sha256, succeed};

/// Adds every path below a folder, with type and mode, owner and group.
fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for name in names(folder) {
        let path = folder.join(name);
        let facts = fs::symlink_metadata(&path).expect("it is there");
        let inside = path.strip_prefix(root).expect("below").display();
        found.push(format!("{inside} {:o} {}:{}", facts.mode(), facts.uid(), facts.gid()));
        if facts.is_dir() {
            list(root, &path, found);
        }
    }
}

#[test]
fn it_has_the_program_the_authorities_and_the_folder_of_the_admin_socket_alone() {
    let root = image().folder.join("root");
    let mut found = Vec::new();
    list(&root, &root, &mut found);
    let expected = [
        "etc 40755 0:0",
        "etc/ssl 40755 0:0",
        "etc/ssl/certs 40755 0:0",
        "etc/ssl/certs/ca-certificates.crt 100644 0:0",
        "pulsegate 100755 0:0",
        "run 40755 0:0",
        "run/pulsegate 40755 65532:65532",
    ];
    assert_eq!(found, expected);
    assert_eq!(sha256(&root.join("pulsegate")), sha256(static_program()));
    let authorities = fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).expect("text");
    assert!(authorities.matches("BEGIN CERTIFICATE").count() > 50, "the authorities of this machine");
}

#[test]
fn its_configuration_names_user_command_health_check_and_origin() {
    let config = &image().config;
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], json!(["/pulsegate"]));
    assert_eq!(config["Cmd"], json!(["run", "-c", "/etc/pulsegate/proxy.toml"]));
    assert_eq!(config["ExposedPorts"], json!({"8443/tcp": {}, "9090/tcp": {}}));
    assert_eq!(config["Healthcheck"]["Test"], json!(["CMD", "/pulsegate", "healthcheck"]));
    let commit = succeed(command("git").args(["log", "-1", "--format=%H %ct"]));
    let (revision, time) = commit.trim().split_once(' ').expect("two fields");
    let created = succeed(command("date").args(["--utc", &format!("--date=@{time}"), "+%Y-%m-%dT%H:%M:%SZ"]));
    let labels = &config["Labels"];
    for (key, value) in [
        ("title", "pulsegate"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("licenses", env!("CARGO_PKG_LICENSE")),
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("revision", revision),
        ("created", created.trim()),
    ] {
        assert_eq!(labels[format!("org.opencontainers.image.{key}")], value, "{key}");
    }
    // The repository has no public address yet.
    let source = labels["org.opencontainers.image.source"].as_str().expect("text");
    assert!(source == "unpublished" || source.starts_with("https://"), "{source}");
}

#[test]
fn a_second_build_makes_the_same_layers() {
    let second = build("second", static_program());
    assert_eq!(second.layers, image().layers);
    // The format of Docker, which the health check needs, has the name of the build's container as the host name.
    let (mut first, mut second) = (image().config.clone(), second.config);
    assert_ne!(first["Hostname"].take(), second["Hostname"].take(), "then the whole image would be the same");
    assert_eq!(first, second);
}

#[test]
fn its_architecture_is_that_of_the_program() {
    let program = work().join("for-arm64");
    fs::copy(static_program(), &program).expect("copy a file");
    // The machine of an ELF header: EM_AARCH64.
    let file = fs::OpenOptions::new().write(true).open(&program).expect("a file");
    file.write_all_at(&183_u16.to_le_bytes(), 18).expect("written");
    let folder = work().join("recorded");
    fs::create_dir(&folder).expect("make a folder");
    fs::write(folder.join("docker"), "#!/bin/sh\necho \"$@\"\nls \"$(eval echo \\${$#})\"\n").expect("write a file");
    succeed(command("chmod").arg("755").arg(folder.join("docker")));
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("text"));
    let mut docker = command(repository().join("deploy/image"));
    docker.arg(&program).args(["--tag", "registry.example.com/pulsegate:1", "--builder", "docker"]).env("PATH", path);
    let called = succeed(&mut docker);
    for words in ["--platform linux/arm64 ", "--target prebuilt ", "--tag registry.example.com/pulsegate:1 ", "root\n"]
    {
        assert!(called.contains(words), "no {words:?} in {called}");
    }
}

#[test]
fn what_cannot_run_in_it_is_refused() {
    let image = |arguments: &[&str]| {
        let mut command = command(repository().join("deploy/image"));
        command.args(arguments);
        command
    };
    let program = static_program().to_str().expect("text");
    refuse(&mut image(&[PULSEGATE, "--tag", "pulsegate"]), 1, "linked dynamically");
    refuse(&mut image(&["deploy/image", "--tag", "pulsegate"]), 1, "no program for Linux");
    refuse(&mut image(&["/nonexistent", "--tag", "pulsegate"]), 1, "no executable file");
    refuse(&mut image(&["--tag", "pulsegate"]), 2, "no program");
    refuse(&mut image(&[program]), 2, "no --tag");
    refuse(&mut image(&[program, "--tag"]), 2, "--tag without a name");
    refuse(&mut image(&[program, "--tag", "pulsegate", "--builder", "kaniko"]), 2, "unknown builder kaniko");
    refuse(&mut image(&[program, "--fast"]), 2, "unknown argument --fast");
    let help = succeed(&mut image(&["--help"]));
    assert!(help.contains("--builder buildah"), "{help}");
}

#[test]
fn hadolint_has_no_objections() {
    let hadolint = repository().join("target/kubelet-venv/bin/hadolint");
    assert!(hadolint.exists(), "{} is missing: run ./tests/install", hadolint.display());
    let lint = |file: &Path| {
        let mut lint = command(&hadolint);
        lint.args(["--no-color", "--failure-threshold", "style"]).arg(file);
        lint
    };
    succeed(&mut lint(&repository().join("deploy/Dockerfile")));
    let bad = work().join("Dockerfile.bad");
    fs::write(&bad, "FROM debian\nRUN cd /tmp\n").expect("write a file");
    assert!(!lint(&bad).output().expect("it runs").status.success(), "it judges");
}
