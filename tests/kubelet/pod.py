"""The life of one pod, as the kubelet leads it. The facts, with their sources in kubernetes/kubernetes:

- Init containers run in order; a sidecar (restartPolicy Always) counts as done once its startup probe has succeeded
  (pkg/kubelet/kuberuntime/kuberuntime_container.go, computeInitContainerActions).
- Liveness and readiness are probed only after the startup probe has succeeded (pkg/kubelet/prober/worker.go). At the deletion
  of a pod its liveness and startup probes end, and its readiness goes on being probed (the same file).
- A container that ends is started again at once the first time, then after 10 s, 20 s, and so on, up to 5 minutes
  (pkg/kubelet/kubelet.go: initialCrashLoopBackOff, MaxCrashLoopBackOff). A liveness failure runs preStop before it ends the container.
- At the deletion every preStop begins at once, sidecars included; each container gets SIGTERM only after its own. Sidecars
  also wait for all app containers, and for the sidecars that come after them (kuberuntime_termination_order.go;
  KEP-753, "Termination of containers"). What preStop and waiting took is taken off the grace period, of which at least 2 s are
  left for the process (killContainer: minimumGracePeriodInSeconds), and SIGKILL follows.
- A deleted pod is an endpoint without readiness at once (EndpointSlice: a terminating pod is never ready).

Not replayed: seccomp profiles, AppArmor, CPU limits, images' pull, restarts of a sidecar during the deletion (KEP-4438).
"""

import asyncio
import os
import pathlib
import signal
import subprocess
import time

from container import DEFAULT_CAPABILITIES, PATH, Container
from manifest import port, sidecar
from probes import Probe
from volumes import Volumes

BACK_OFF = 10
LEAST_GRACE = 2


class Pod:
    """A pod on the node. `changed` is called when its readiness may have changed."""

    def __init__(self, name, node, template, changed):
        self.name, self.node, self.template, self.changed = name, node, template, changed
        self.spec = template["spec"]
        self.work = pathlib.Path(node.work) / name
        self.containers, self.restarts, self.probes = {}, {}, {}
        self.deleted_at = None
        self.address = None
        self._tasks = set()
        self._terminated = {}
        self._starts = 0

    def event(self, container, what, detail=""):
        self.node.event(f"{self.name}/{container}", what, detail)

    @property
    def ready(self):
        """Ready: every container runs and its readiness probe, if it has one, has succeeded. A deleted pod never is."""
        names = [c["name"] for c in self.spec["containers"]] + [c["name"] for c in self._sidecars()]
        return self.deleted_at is None and all(self._is_ready(name) for name in names)

    def _is_ready(self, name):
        running = name in self.containers and self.containers[name].running
        # It has none before it runs.
        probes = self.probes.get(name)
        return running and probes is not None and all(p.passed for kind, p in probes.items() if kind != "liveness")

    def _sidecars(self):
        return [c for c in self.spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]

    # Start

    async def start(self):
        """Makes the sandbox and the volumes, and starts the containers in their order."""
        self._sandbox = self.node.sandbox(self.name)
        self.address, self.address6 = self._sandbox.address, self._sandbox.address6
        self.event("", "sandbox", f"{self.address} {self.address6}")
        self.volumes = Volumes(self.work / "volumes", self.template, self.node.config_maps, self.node.secrets)
        for settings in self.spec.get("initContainers", []):
            if settings.get("restartPolicy") == "Always":
                started = asyncio.Event()
                self._spawn(self._supervise(settings, started))
                await started.wait()
            else:
                await self._to_its_end(settings)
        for settings in self.spec["containers"]:
            self._spawn(self._supervise(settings, asyncio.Event()))

    def _spawn(self, work):
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task):
        self._tasks.discard(task)
        # An error of the replay must not pass for a slow pod.
        if not task.cancelled() and task.exception():
            self.node.fail(task.exception())

    async def _to_its_end(self, settings):
        pause = 0
        while True:
            container = await self._run(settings)
            code = await container.wait()
            self.event(settings["name"], "ended", f"exit {code}")
            if code == 0:
                return
            await asyncio.sleep(pause)
            pause = min(max(BACK_OFF, pause * 2), 300)

    async def _supervise(self, settings, started):
        """Runs a container, probes it, and starts it again after its end, until the pod is deleted."""
        name, pause = settings["name"], 0
        while True:
            container = await self._run(settings)
            probing = asyncio.create_task(self._probe(settings, container, started))
            code = await container.wait()
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            self.event(name, "ended", f"exit {code}")
            if self.deleted_at is not None:
                return
            self.changed()
            self.event(name, "restart", f"in {pause} s")
            await asyncio.sleep(pause)
            if self.deleted_at is not None:
                return
            pause = min(max(BACK_OFF, pause * 2), 300)
            self.restarts[name] = self.restarts.get(name, 0) + 1

    async def _probe(self, settings, container, started):
        kinds = {k: settings[f"{k}Probe"] for k in ("startup", "readiness", "liveness") if f"{k}Probe" in settings}
        probes = {kind: Probe(kind, found, self, container) for kind, found in kinds.items()}
        name = settings["name"]
        self.probes[name] = probes
        passed, workers = asyncio.Event(), []

        async def changed(probe):
            word = "passes" if probe.passed else "fails"
            self.event(name, f"{probe.kind} {word}", "" if probe.passed else probe.reason)
            if probe.kind == "startup" and probe.passed:
                passed.set()
            elif probe.kind != "readiness" and not probe.passed:
                grace = probe.settings.get("terminationGracePeriodSeconds", self._grace())
                self._spawn(self._kill(settings, container, grace))
            self.changed()

        try:
            if "startup" in probes:
                workers.append(asyncio.create_task(probes["startup"].run(changed)))
                await passed.wait()
                workers.pop().cancel()
            started.set()
            self.changed()
            for kind in ("readiness", "liveness"):
                if kind in probes:
                    workers.append(asyncio.create_task(probes[kind].run(changed)))
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION) if workers else ((), ())
            for worker in done:
                worker.result()
        finally:
            for worker in workers:
                worker.cancel()

    async def _run(self, settings):
        container = self._container(settings)
        self.probes.pop(settings["name"], None)
        self.containers[settings["name"]] = container
        await container.start()
        self.event(settings["name"], "started")
        return container

    def _container(self, settings):
        name = settings["name"]
        self._starts += 1
        image = self.node.image(settings["image"])
        context = self.spec.get("securityContext", {}) | settings.get("securityContext", {})
        user, group = context.get("runAsUser", image.user[0]), context.get("runAsGroup", image.user[1])
        assert not (context.get("runAsNonRoot") and user == 0), f"{name}: runAsNonRoot, and its user is root"
        dropped = context.get("capabilities", {}).get("drop", [])
        capabilities = [] if "ALL" in dropped or user != 0 else DEFAULT_CAPABILITIES
        groups = [context["fsGroup"]] if "fsGroup" in context else []
        process = {
            "user": {"uid": user, "gid": group, "additionalGids": groups},
            "args": settings.get("command", image.entrypoint) + settings.get("args", [] if "command" in settings else image.command),
            "env": [PATH, f"HOSTNAME={self.name}"] + self._environment(settings),
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": context.get("allowPrivilegeEscalation") is False,
        }
        mounts = [
            (self.volumes.path(m["name"]) / m.get("subPath", ""), m["mountPath"], m.get("readOnly", False))
            for m in settings.get("volumeMounts", [])
        ]
        memory = settings.get("resources", {}).get("limits", {}).get("memory")
        return Container(
            f"{self.node.token}-{self.name}-{name}-{self._starts}", self.node.work, image, process, mounts,
            context.get("readOnlyRootFilesystem", False), self._sandbox.namespaces, memory and _bytes(memory),
        )

    def _environment(self, settings):
        services = self.node.service_variables() if self.spec.get("enableServiceLinks", True) else {}
        fields = {"status.podIP": self.address, "metadata.name": self.name}
        # The app in the place of the image listens where the manifest says that the image does.
        services |= {"PORT": str(p["containerPort"]) for p in settings.get("ports", [])[:1]}
        for variable in settings.get("env", []):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                services[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]
            else:
                assert not source, f"variables of this kind are not replayed: {variable}"
                services[variable["name"]] = variable.get("value", "")
        return [f"{key}={value}" for key, value in services.items()]

    # Update and end

    def update_volumes(self):
        """Writes changed ConfigMaps and Secrets into the running pod, as the kubelet does within a minute."""
        for name, volume in self.volumes.volumes.items():
            if "emptyDir" not in volume:
                self.volumes.update(name)

    def _grace(self):
        return self.spec.get("terminationGracePeriodSeconds", 30)

    async def delete(self, grace=None):
        """Ends the pod within its grace period, or the given one (`kubectl delete --grace-period`); returns the seconds taken."""
        grace = self._grace() if grace is None else grace
        self.deleted_at = time.monotonic()
        self.event("", "deleted", f"grace {grace} s")
        for probe in [p for probes in self.probes.values() for p in probes.values() if p.kind != "readiness"]:
            # These end with the deletion; a failure that is being found has no effect.
            probe.settings = probe.settings | {"failureThreshold": 1 << 30}
        self.changed()
        settings = {c["name"]: c for c in self.spec.get("initContainers", []) + self.spec["containers"]}
        running = {name: c for name, c in self.containers.items() if c.running}
        self._terminated = {name: asyncio.Event() for name in running}
        order = self._order()
        await asyncio.gather(*(self._kill(settings[name], c, grace, order.get(name, [])) for name, c in running.items()))
        await asyncio.gather(*self._tasks)
        for container in self.containers.values():
            await container.remove()
        self.volumes.remove()
        self._sandbox.remove()
        took = time.monotonic() - self.deleted_at
        self.event("", "gone", f"after {took:.1f} s")
        return took

    def _order(self):
        """Returns for each sidecar the containers whose end it waits for: all app containers, and the sidecar after it."""
        apps, after, order = [c["name"] for c in self.spec["containers"]], [], {}
        for settings in reversed(self._sidecars()):
            order[settings["name"]] = apps + after
            after = [settings["name"]]
        return order

    async def _kill(self, settings, container, grace, prerequisites=()):
        name, left = settings["name"], grace
        hook = settings.get("lifecycle", {}).get("preStop")
        if hook and left > 0:
            left -= int(await self._pre_stop(name, hook, container, left))
        if prerequisites and left > 0:
            began = time.monotonic()
            for other in prerequisites:
                if other in self._terminated:
                    try:
                        await asyncio.wait_for(self._terminated[other].wait(), max(0.0, left - (time.monotonic() - began)))
                    except asyncio.TimeoutError:
                        break
            left -= int(time.monotonic() - began)
        left = max(LEAST_GRACE, left)
        if container.running:
            self.event(name, "SIGTERM", f"{left} s left")
            await container.kill(signal.SIGTERM)
            if await container.wait(left) is None:
                self.event(name, "SIGKILL")
                await container.kill(signal.SIGKILL)
                assert await container.wait(30) is not None, f"{name} outlives SIGKILL"
        if name in self._terminated:
            self._terminated[name].set()

    async def _pre_stop(self, name, hook, container, grace):
        began = time.monotonic()
        self.event(name, "preStop", next(iter(hook)))
        if "sleep" in hook:
            await asyncio.sleep(min(hook["sleep"]["seconds"], grace))
            detail = "slept"
        else:
            assert "exec" in hook, f"hooks of this kind are not replayed: {hook}"
            code, output = await container.exec(hook["exec"]["command"], grace)
            last = output.splitlines()[-1] if output else ""
            detail = "not done within the grace period" if code is None else f"exit {code}: {last}"
        took = time.monotonic() - began
        self.event(name, "preStop done", f"{took:.1f} s, {detail}")
        return took

    def proxy(self):
        """Returns the container of the sidecar."""
        return self.containers[sidecar(self.template)["name"]]

    def app(self):
        """Returns the name of the app's container, the first one."""
        return self.spec["containers"][0]["name"]

    def port(self, value):
        """Returns the number of a port of this pod."""
        return port(self.template, value)


class Sandbox:
    """The namespaces of a pod, held by a process as the pause container does, with a link to the node."""

    def __init__(self, index):
        self.address, node = f"10.88.{index}.2", f"10.88.{index}.1"
        self.address6, node6 = f"fd00:88:{index}::2", f"fd00:88:{index}::1"
        self._pause = subprocess.Popen(["unshare", "--net", "--ipc", "--uts", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        pid, deadline = self._pause.pid, time.monotonic() + 10
        while os.readlink(f"/proc/{pid}/ns/uts") == os.readlink("/proc/self/ns/uts"):
            assert time.monotonic() < deadline and self._pause.poll() is None, "no namespaces for a pod"
            time.sleep(0.005)
        self.namespaces = {kind: f"/proc/{pid}/ns/{file}" for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"))}
        link = f"pod{index}"
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _ip("address", "add", f"{node}/30", "dev", link)
        # Without the detection of duplicates, which takes seconds.
        _ip("address", "add", f"{node6}/64", "dev", link, "nodad")
        _ip("link", "set", link, "up")
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        _ip("link", "set", "lo", "up", inside=inside)
        _ip("address", "add", f"{self.address}/30", "dev", "eth0", inside=inside)
        _ip("address", "add", f"{self.address6}/64", "dev", "eth0", "nodad", inside=inside)
        _ip("link", "set", "eth0", "up", inside=inside)
        _ip("route", "add", "default", "via", node, inside=inside)

    def remove(self):
        self._pause.kill()
        self._pause.wait()


def _ip(*words, inside=()):
    subprocess.run([*inside, "ip", *words], check=True)


def _bytes(quantity):
    """Returns the bytes of a quantity such as 256Mi."""
    for suffix, factor in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10), ("G", 10**9), ("M", 10**6)):
        if str(quantity).endswith(suffix):
            return int(float(quantity.removesuffix(suffix)) * factor)
    return int(quantity)
