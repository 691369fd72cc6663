"""The checks of tests/deploy/validate. Each is a function `check_…` that raises AssertionError where something is wrong."""

import copy
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
UNIT = ROOT / "deploy/systemd/pulsegate.service"
# The first version that runs native sidecars unasked, and the newest one known.
VERSIONS = ["1.29", kubernetes_validate.latest_version()]
# As `systemd-analyze security` counts, times ten; below 20 it says "OK".
EXPOSURE_MAX = 20


def resources():
    for path in MANIFESTS:
        for resource in yaml.safe_load_all(path.read_text()):
            if resource:
                yield path.relative_to(ROOT), resource


def the(kind):
    found = [resource for _, resource in resources() if resource["kind"] == kind]
    assert len(found) == 1, f"{len(found)} of kind {kind}"
    return found[0]


def pod():
    return the("Deployment")["spec"]["template"]["spec"]


def sidecar():
    (container,) = [c for c in pod()["initContainers"] if c["name"] == "pulsegate"]
    return container


def check_manifests_are_valid():
    seen = 0
    for path, resource in resources():
        for version in VERSIONS:
            try:
                # A kind without a schema raises too, rather than passing unseen.
                kubernetes_validate.validate(resource, version, strict=True)
            except Exception as error:
                raise AssertionError(f"{path}, Kubernetes {version}: {error}") from error
            seen += 1
    assert seen >= 3 * len(VERSIONS), f"only {seen} validations"


def check_an_invalid_manifest_is_refused():
    broken = copy.deepcopy(the("Deployment"))
    container = broken["spec"]["template"]["spec"]["initContainers"][0]
    container["restartPolcy"] = container.pop("restartPolicy")
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(broken, version, strict=True)
        except kubernetes_validate.ValidationError:
            continue
        raise AssertionError(f"a misspelt key passed for Kubernetes {version}")


def check_pulsegate_is_a_native_sidecar():
    assert sidecar()["restartPolicy"] == "Always"
    assert pod()["enableServiceLinks"] is False


def check_probes_of_the_sidecar_do_not_depend_on_the_app():
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert sidecar()[probe]["tcpSocket"] == {"port": 8443}, probe


def check_the_service_leads_to_the_proxy_alone():
    (port,) = the("Service")["spec"]["ports"]
    (container_port,) = sidecar()["ports"]
    assert port["targetPort"] == 8443 == container_port["containerPort"], "a number, the same everywhere"
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert the("Service")["spec"]["selector"].items() <= labels.items()
    for container in pod()["containers"]:
        assert "ports" not in container, f"{container['name']} offers a port past the proxy"


def check_pods_are_restricted():
    """The `restricted` level of the Pod Security Standards, and a read-only root on top."""
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod()["initContainers"] + pod()["containers"]:
        name, context = container["name"], container["securityContext"]
        assert context["runAsUser"] > 0, f"{name}: a number that is not root's"
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert container["resources"]["limits"]["memory"], name
    allowed = {"configMap", "secret", "emptyDir"}
    for volume in pod()["volumes"]:
        assert set(volume) - {"name"} <= allowed, volume["name"]


def check_files_stand_where_the_configuration_looks():
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar()["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod()["volumes"]}
    config_map = the("ConfigMap")
    assert volumes["config"]["configMap"]["name"] == config_map["metadata"]["name"]
    (command,) = re.findall(r"^CMD .*$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)
    assert f'"{mounts["config"]}/proxy.toml"' in command, command
    configuration = config_map["data"]["proxy.toml"]
    for key, name in (("certificate", "tls.crt"), ("private_key", "tls.key")):
        assert f'{key} = "{mounts["tls"]}/{name}"' in configuration, "a kubernetes.io/tls Secret has these names"
    assert volumes["tls"]["secret"]["defaultMode"] == 0o440
    assert 'address = "0.0.0.0:8443"' in configuration


def check_there_is_time_to_end():
    sleep = max(c["lifecycle"]["preStop"]["sleep"]["seconds"] for c in pod()["containers"])
    assert sleep + 17 < pod()["terminationGracePeriodSeconds"]


def check_the_image_runs_as_the_user_of_the_manifest():
    text = (ROOT / "deploy/Dockerfile").read_text()
    user = sidecar()["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{user}\n" in text
    assert re.search(r"\nFROM scratch AS settings\n", text)


def check_the_build_context_is_complete():
    """What the ignore file lets through is a workspace that cargo accepts."""
    lines = (ROOT / "deploy/Dockerfile.dockerignore").read_text().split("\n")
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*", "everything is left out but what is named"
    with tempfile.TemporaryDirectory() as folder:
        for pattern in patterns[1:]:
            source, copied = ROOT / pattern.removeprefix("!"), pathlib.Path(folder) / pattern.removeprefix("!")
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, copied) if source.is_dir() else shutil.copy(source, copied)
        command = ["cargo", "metadata", "--locked", "--no-deps", "--format-version=1"]
        outcome = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert outcome.returncode == 0, outcome.stderr
        for source in pathlib.Path(folder).glob("src/**/*.rs"):
            # Tests are not built into the image, and may look at the whole repository.
            if "tests" in source.relative_to(folder).parts or source.stem.endswith("tests"):
                continue
            for included in re.findall(r'include_(?:str|bytes)!\("([^"]+)"\)', source.read_text()):
                assert (source.parent / included).exists(), f"{source.relative_to(folder)} includes {included}"


def check_the_certificate_of_the_readme_fills_the_secret():
    block = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    certificate = yaml.safe_load(block)
    assert certificate["apiVersion"] == "cert-manager.io/v1" and certificate["kind"] == "Certificate", certificate
    secrets = [volume["secret"]["secretName"] for volume in pod()["volumes"] if "secret" in volume]
    assert [certificate["spec"]["secretName"]] == secrets, secrets
    assert certificate["spec"]["dnsNames"] and certificate["spec"]["issuerRef"]["name"], certificate


def workflows():
    found = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert found, "no workflows"
    return [(path.relative_to(ROOT), path.read_text()) for path in found]


def check_actions_of_workflows_are_pinned():
    for path, text in workflows():
        for job in yaml.safe_load(text)["jobs"].values():
            for action in [step["uses"] for step in job["steps"] if "uses" in step]:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), f"{path}: {action}"


def check_workflows_run_scripts_that_exist():
    for path, text in workflows():
        for job in yaml.safe_load(text)["jobs"].values():
            for command in [step["run"] for step in job["steps"] if "run" in step]:
                program = command.split()[0]
                assert "/" not in program or (ROOT / program).is_file(), f"{path}: {command}"


def check_a_workflow_builds_with_the_oldest_rust():
    manifest = (ROOT / "Cargo.toml").read_text()
    version = re.search(r'^rust-version = "(.+)"$', manifest, re.MULTILINE)[1]
    steps = yaml.safe_load(dict(workflows())[pathlib.Path(".github/workflows/ci.yml")])["jobs"]["minimum-rust"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert f"cargo +{version} check --locked --bins" in commands, commands


def check_issue_forms_are_complete():
    for path in sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")):
        form = yaml.safe_load(path.read_text())
        if path.stem == "config":
            continue
        assert form["name"] and form["description"], path
        for field in form["body"]:
            assert field["attributes"].get("label") or field["type"] == "markdown", path


def systemd(*arguments):
    assert shutil.which("systemd-analyze"), "no systemd-analyze here: apt-get install systemd"
    with tempfile.TemporaryDirectory() as folder:
        # The program is not installed on a machine that only tests; any other stands in for it.
        unit = pathlib.Path(folder) / UNIT.name
        unit.write_text(UNIT.read_text().replace("/usr/local/bin/pulsegate", shutil.which("true")))
        command = ["systemd-analyze", *arguments, "--no-pager", str(unit)]
        return subprocess.run(command, capture_output=True, text=True)


def check_systemd_takes_the_unit():
    outcome = systemd("verify", "--man=no")
    # Unknown keys are told, and no failure to systemd.
    assert outcome.returncode == 0 and not outcome.stderr, outcome.stderr


def check_the_unit_is_confined():
    outcome = systemd("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def check_the_unit_takes_up_new_certificates():
    unit, config = UNIT.read_text(), (ROOT / "config/proxy.toml").read_text()
    settings = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    # A credential is a copy that is made at the start, and the owner of a file needs a user that stays.
    assert "LoadCredential" not in settings and "DynamicUser" not in settings, settings
    assert settings["User"] == settings["Group"] == "pulsegate", settings
    # The files are installed where the documented configuration looks for them.
    paths = {key: re.search(rf'^{key} = "(.+)"$', config, re.MULTILINE)[1] for key in ("certificate", "private_key")}
    for command in (
        f"install -m 644 tls.crt {paths['certificate']}",
        f"install -m 640 -g pulsegate tls.key {paths['private_key']}",
        f"install -d -m 750 -g pulsegate {pathlib.Path(paths['private_key']).parent}",
        f"install -D -m 644 config/proxy.toml {settings['ExecStart'].split()[-1]}",
    ):
        assert f"#     {command}\n" in unit, f"no {command!r} in the unit"


def main():
    checks = [(name, check) for name, check in globals().items() if name.startswith("check_")]
    passed = failed = 0
    for name, check in checks:
        title = name.removeprefix("check_").replace("_", " ")
        try:
            check()
        except Exception:
            failed += 1
            print(f"FAILED   {title}")
            print("         " + traceback.format_exc().replace("\n", "\n         ").rstrip())
        else:
            passed += 1
            print(f"ok       {title}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
