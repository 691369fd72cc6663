"""A node with its pods, a Service in front of them, and the programs of the proof: the balancer and the clients.

All of it runs in namespaces that end together with this process; no packet leaves them.
"""

import asyncio
import json
import os
import pathlib
import secrets
import subprocess
import sys
import time

from container import Image
from pod import Pod, Sandbox

HERE = pathlib.Path(__file__).resolve().parent
SERVICE = "10.96.0.10"
# The time that a change of endpoints takes to every balancer. It is a part of the proof, not a wait for something.
PROPAGATION = 1.0
TIMEOUT = 90


class Node:
    """The node. Every event is printed with the seconds since its start."""

    def __init__(self, work, manifest, image, tls):
        self.work, self.manifest = pathlib.Path(work), manifest
        self.token = secrets.token_hex(4)
        self.config_maps, self.secrets = dict(manifest.config_maps), dict(manifest.secrets)
        self._began = time.monotonic()
        self.events, self.pods, self.failures = [], [], []
        self._proxy_image = Image.exported(image)
        app = ["node", str(HERE / "app.js")]
        self._app_image = Image.of_machine(self.work / "machine", app, HERE.parents[1])
        # The Secrets that the pods mount and that a certificate authority would fill.
        for volume in manifest.template()["spec"].get("volumes", []):
            name = volume.get("secret", {}).get("secretName")
            if name and name not in self.secrets:
                self.secrets[name] = {"tls.crt": _read(tls, "server.pem"), "tls.key": _read(tls, "server.key")}
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        subprocess.run(["ip", "address", "add", f"{SERVICE}/32", "dev", "lo"], check=True)

    def event(self, who, what, detail=""):
        at = time.monotonic()
        self.events.append((at, who, what, detail))
        print(f"{at - self._began:8.2f}  {who:<16} {what:<16} {detail}", flush=True)

    def fail(self, error):
        self.failures.append(error)
        print(f"the replay has failed: {error!r}", file=sys.stderr, flush=True)

    def image(self, name):
        """Returns the image of this name: pulsegate's own, or the app in the place of any other."""
        return self._proxy_image if "/pulsegate:" in f"/{name}" else self._app_image

    def sandbox(self, _name):
        return Sandbox(len(self.pods))

    def service_variables(self):
        """Returns the variables that service links set: names that a configuration by environment must not confuse."""
        variables = {}
        for service in self.manifest.services():
            name = service["metadata"]["name"].upper().replace("-", "_")
            number = service["spec"]["ports"][0]["port"]
            variables |= {f"{name}_SERVICE_HOST": SERVICE, f"{name}_SERVICE_PORT": str(number), f"{name}_PORT": f"tcp://{SERVICE}:{number}"}
        return variables

    async def pod(self, name, change=lambda template: None):
        """Starts a pod of the manifest's template, changed by `change`, and waits until it is ready."""
        template = self.manifest.template()
        change(template)
        pod = Pod(name, self, template, self._endpoints)
        self.pods.append(pod)
        await asyncio.wait_for(pod.start(), TIMEOUT)
        await self.until(f"{name} is ready", lambda: pod.ready)
        self.event(f"{name}/", "ready")
        await self.until(f"the balancer knows {name}", lambda: self._known(pod))
        return pod

    async def until(self, what, condition, timeout=TIMEOUT):
        """Waits for a condition, and fails with the last events when the time is over."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.failures:
                raise self.failures[0]
            if time.monotonic() > deadline:
                tails = [f"{c.id}:\n{c.tail()}" for pod in self.pods for c in pod.containers.values()]
                raise AssertionError(f"waited {timeout} s in vain: {what}\n" + "\n".join(tails))
            await asyncio.sleep(0.02)

    # The Service

    async def balance(self):
        """Starts the balancer of the Service."""
        self._balancer, self._in_force, self._sent = await Program.start("balancer.py"), {}, None
        (service,) = self.manifest.services()
        self.ports = service["spec"]["ports"]
        self._reading = asyncio.create_task(self._read_endpoints())
        self._endpoints()
        await self.until("the balancer listens", lambda: self._in_force)

    async def _read_endpoints(self):
        while line := await self._balancer.line(None):
            self._in_force = line
            pods = [pod.name for pod in self.pods if self._known(pod)]
            self.event("balancer", "endpoints", " ".join(pods) or "none")

    def _known(self, pod):
        return any(e.startswith(f"{pod.address}:") for known in self._in_force.values() for e in known)

    def _endpoints(self):
        ready = [pod for pod in self.pods if pod.ready]
        endpoints = {
            f"{SERVICE}:{p['port']}": [f"{pod.address}:{pod.port(p.get('targetPort', p['port']))}" for pod in ready]
            for p in self.ports
        }
        if endpoints != self._sent:
            self._sent = endpoints
            self.event("service", "endpoints", " ".join(pod.name for pod in ready) or "none")
            asyncio.get_running_loop().call_later(PROPAGATION, self._balancer.send, endpoints)

    async def clients(self, tls, *arguments):
        """Starts clients of the first port of the Service, without TLS if `tls` is nothing; returns them as soon as all are
        connected."""
        trust = ["--ca", str(pathlib.Path(tls) / "ca.pem")] if tls else []
        clients = await Program.start("clients.py", "--address", f"{SERVICE}:{self.ports[0]['port']}", *trust, *arguments)
        connected = await clients.line(TIMEOUT)
        self.event("clients", "connected", json.dumps(connected))
        return clients

    async def metrics(self, pod, name):
        """Returns the value of a metric without labels."""
        reader, writer = await asyncio.open_connection(pod.address, 9090)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n")
        text = (await asyncio.wait_for(reader.read(), TIMEOUT)).decode()
        writer.close()
        return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


class Program:
    """A Python program of this folder that speaks JSON lines."""

    @classmethod
    async def start(cls, script, *arguments):
        program = cls()
        program._process = await asyncio.create_subprocess_exec(
            sys.executable, str(HERE / script), *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
        )
        return program

    def send(self, value):
        self._process.stdin.write(json.dumps(value).encode() + b"\n")

    async def line(self, timeout):
        line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        assert line, f"{self._process} has ended"
        return json.loads(line)

    async def report(self, timeout=TIMEOUT):
        """Ends the program and returns what it has seen."""
        self.send("report")
        return await self.line(timeout)


def _read(folder, name):
    return (pathlib.Path(folder) / name).read_text()
