"""Scenarios of a running image: runs.py SCENARIO IMAGE TLS. The image is an exported one, of `tests/image/built.rs`."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "kubelet"))

from container import PATH, Container, Image  # noqa: E402
from node import HERE, Program  # noqa: E402

CONFIGURATION = """
[listen]
address = "127.0.0.1:8443"
[tls]
certificate = "/etc/pulsegate/server.pem"
private_key = "/etc/pulsegate/server.key"
[upstream]
url = "http://127.0.0.1:3000"
[drain]
delay = "0s"
window = "1s"
[log]
format = "json"
"""
SESSIONS = 5
TIMEOUT = 30


async def started(work, image, tls, readonly, volume):
    """Starts the image with its own user and command, and without capabilities, behind an app; connects clients."""
    config = work / "config"
    config.mkdir()
    for name in ("server.pem", "server.key"):
        (config / name).write_text((tls / name).read_text())
    (config / "proxy.toml").write_text(CONFIGURATION)
    mounts = [(config, "/etc/pulsegate", True)]
    if volume:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "uid=65532,gid=65532,mode=700", "run", volume], check=True)
        mounts.append((volume, "/run/pulsegate", False))
    process = {
        "user": {"uid": image.user[0], "gid": image.user[1]},
        "args": image.entrypoint + image.command,
        "env": [PATH],
        "capabilities": {},
        "noNewPrivileges": True,
    }
    container = Container(f"image-{work.name}", work, image, process, mounts, readonly, {})
    await container.start()
    await until(container, "it listens", lambda: container.log(message="listening"))
    clients = await Program.start(
        "clients.py", "--address", "127.0.0.1:8443", "--ca", str(tls / "ca.pem"), "--websockets", str(SESSIONS)
    )
    assert (await clients.line(TIMEOUT))["websockets"] == SESSIONS
    return container, clients


async def until(container, what, condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline and container.running, f"{what}: in vain\n{container.tail()}"
        await asyncio.sleep(0.02)


async def health_check(container, config):
    """Runs the command of the image's HEALTHCHECK."""
    code, output = await container.exec(config["Healthcheck"]["Test"][1:], TIMEOUT)
    assert (code, output) == (0, "alive"), f"exit {code}: {output}"


def confined(container):
    """Fails unless the first process has no capability, cannot get one, and is not root."""
    pid = (container.bundle / "pid").read_text()
    facts = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["65532"] * 4, facts["Uid"]
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}, facts
    assert facts["NoNewPrivs"] == "1", facts["NoNewPrivs"]


async def closes(clients):
    return sorted(code for _, code, _ in (await clients.report())["closes"])


async def ended(container):
    """Sends SIGTERM, and fails unless it ends in order."""
    await container.kill(signal.SIGTERM)
    assert await container.wait(TIMEOUT) == 0, f"exit {container.code}\n{container.tail()}"
    assert container.log(message="stopped")[0]["clean"] is True, container.tail()


async def drained_by_command(container, clients):
    code, output = await container.exec(["/pulsegate", "drain", "--wait"], TIMEOUT)
    assert code == 0 and "drained" in output, f"exit {code}: {output}\n{container.tail()}"
    assert container.running, "drain does not end the process"
    assert await closes(clients) == [1012] * SESSIONS


async def read_only(work, image, config, tls):
    """Nothing is mounted but the configuration: health check and SIGTERM work, `drain` names what it lacks."""
    container, clients = await started(work, image, tls, True, None)
    confined(container)
    await health_check(container, config)
    code, output = await container.exec(["/pulsegate", "drain"], TIMEOUT)
    assert code == 1 and "/run/pulsegate/admin.sock" in output, f"exit {code}: {output}"
    await ended(container)
    assert await closes(clients) == [1012] * SESSIONS


async def with_volume(work, image, config, tls):
    volume = work / "run"
    volume.mkdir()
    container, clients = await started(work, image, tls, True, volume)
    confined(container)
    await drained_by_command(container, clients)
    await health_check(container, config)
    await ended(container)
    subprocess.run(["umount", volume], check=True)


async def writable_root(work, image, config, tls):
    container, clients = await started(work, image, tls, False, None)
    confined(container)
    await drained_by_command(container, clients)
    await ended(container)


async def main():
    os.umask(0o022)
    scenario, folder, tls = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    app = await asyncio.create_subprocess_exec(
        "node", str(HERE / "app.js"), env={"HOST": "127.0.0.1", "PATH": PATH.removeprefix("PATH=")}, stdout=asyncio.subprocess.PIPE
    )
    assert b"listening" in await asyncio.wait_for(app.stdout.readline(), TIMEOUT)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder.parent) as work:
        config = json.loads((folder / "config.json").read_text())
        await globals()[scenario](pathlib.Path(work), Image.exported(folder), config, tls)
    app.kill()
    await app.wait()
    print(f"ok: {scenario}")


asyncio.run(main())
