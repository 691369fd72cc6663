"""The checks of tests/deploy/validate. Each is a function `check_…` that raises AssertionError where something is wrong."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import traceback

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIDECAR = ROOT / "deploy/kubernetes/component/sidecar.yaml"
UNIT = ROOT / "deploy/systemd/pulsegate.service"
# As `systemd-analyze security` counts, times ten; below 20 it says "OK".
EXPOSURE_MAX = 20


def sidecar():
    (container,) = yaml.safe_load(SIDECAR.read_text())["spec"]["template"]["spec"]["initContainers"]
    return container


def check_the_image_runs_as_the_user_of_the_manifest():
    text = (ROOT / "deploy/Dockerfile").read_text()
    user = sidecar()["securityContext"]["runAsUser"]
    assert f"\nUSER {user}:{user}\n" in text
    assert re.search(r"\nFROM scratch AS settings\n", text)
    (command,) = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    assert json.loads(command) == sidecar()["args"], command


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
    pod = yaml.safe_load(SIDECAR.read_text())["spec"]["template"]["spec"]
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
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
