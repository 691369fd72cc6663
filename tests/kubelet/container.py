"""Containers by runc, the runtime below containerd and CRI-O."""

import asyncio
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

# What containerd and CRI-O leave a container that drops nothing, and as much as an app needs of it here.
DEFAULT_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Folders of this machine that an image made of it does not have: the container gets its own.
OWN_FOLDERS = {"dev", "proc", "sys", "run", "tmp", "lost+found"}
TIMEOUT = 30


class Image:
    """A root folder, with the user and the command of the image's configuration."""

    def __init__(self, root, user, entrypoint, command, machine=()):
        self.root, self.user, self.entrypoint, self.command = root, user, entrypoint, command
        # Bound read-only from this machine: pairs of source and target.
        self.machine = list(machine)

    @classmethod
    def exported(cls, folder):
        """The image that tests/image has built: its files, and its configuration as JSON."""
        folder = pathlib.Path(folder)
        config = json.loads((folder / "config.json").read_text())
        user, group = config["User"].split(":")
        return cls(folder / "root", (int(user), int(group)), config["Entrypoint"], config["Cmd"])

    @classmethod
    def of_machine(cls, root, command, repository):
        """An image that holds the programs of this machine, without a copy of them."""
        root.mkdir(parents=True)
        binds = []
        for entry in sorted(pathlib.Path("/").iterdir()):
            if entry.name in OWN_FOLDERS:
                continue
            if entry.is_symlink():
                (root / entry.name).symlink_to(os.readlink(entry))
            elif entry.is_dir():
                (root / entry.name).mkdir()
                binds.append((entry, "/" + entry.name))
        for folder in OWN_FOLDERS:
            (root / folder).mkdir()
        if repository.parts[1] in OWN_FOLDERS:
            binds.append((repository, str(repository)))
        return cls(root, (1000, 1000), command, [], binds)


class Container:
    """A container in the sandbox of a pod. Its output is kept as lines."""

    def __init__(self, name, work, image, process, mounts, readonly, namespaces, memory=None):
        self.id = name
        self.work = pathlib.Path(work)
        self.lines = []
        self.code = None
        self._ended = asyncio.Event()
        bundle = self.work / name
        bundle.mkdir(parents=True)
        root = bundle / "root"
        # Links, not copies: the mount points that runc makes are this container's alone.
        subprocess.run(["cp", "--archive", "--link" if readonly else "--reflink=auto", image.root, root], check=True)
        spec = self._spec(root, image, process, mounts, readonly, namespaces, memory)
        (bundle / "config.json").write_text(json.dumps(spec))
        self.bundle = bundle

    def _spec(self, root, image, process, mounts, readonly, namespaces, memory):
        default = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
            {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
        ]
        binds = [(str(source), target, True) for source, target in image.machine]
        default += [
            {"destination": target, "type": "bind", "source": str(source), "options": ["rbind", "ro" if ro else "rw"]}
            for source, target, ro in binds + mounts
        ]
        resources = {"devices": [{"allow": False, "access": "rwm"}]}
        if memory:
            resources["memory"] = {"limit": memory}
        return {
            "ociVersion": "1.0.2",
            "process": process | {"terminal": False, "cwd": "/"},
            "root": {"path": str(root), "readonly": readonly},
            "mounts": default,
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "mount"}] + [{"type": t, "path": p} for t, p in namespaces.items()],
                "resources": resources,
                "cgroupsPath": f"/pulsegate-kubelet/{self.id}",
                "maskedPaths": ["/proc/kcore", "/sys/firmware"],
                "readonlyPaths": ["/proc/sys", "/proc/sysrq-trigger"],
            },
        }

    def _runc(self, *words):
        return ["runc", "--root", str(self.work / "runc"), *map(str, words)]

    async def start(self):
        """Starts the process, and returns once it runs."""
        pid_file = self.bundle / "pid"
        command = self._runc("run", "--bundle", self.bundle, "--pid-file", pid_file, self.id)
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read())
        deadline = time.monotonic() + TIMEOUT
        while not (pid_file.exists() and pid_file.read_text()) and self._process.returncode is None:
            assert time.monotonic() < deadline, f"{self.id} does not start: {self.tail()}"
            await asyncio.sleep(0.01)

    async def _read(self):
        while line := await self._process.stdout.readline():
            self.lines.append((time.monotonic(), line.decode(errors="replace").rstrip("\n")))
        self.code = await self._process.wait()
        self._ended.set()

    async def wait(self, timeout=None):
        """Returns the exit code, or nothing when the time is over."""
        try:
            await asyncio.wait_for(self._ended.wait(), timeout)
        except asyncio.TimeoutError:
            return None
        return self.code

    @property
    def running(self):
        return not self._ended.is_set()

    async def kill(self, number):
        """Sends a signal to the first process."""
        if self.running:
            await _run(self._runc("kill", self.id, signal.Signals(number).name))

    async def exec(self, words, timeout):
        """Runs a command inside; returns its exit code (nothing when the time is over) and its output."""
        return await _run(self._runc("exec", self.id, *words), timeout)

    def log(self, **wanted):
        """Returns the log lines (JSON) with these fields, each with the time at which it was read as `read_at`."""
        found = []
        for at, text in list(self.lines):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and all(line.get(key) == value for key, value in wanted.items()):
                found.append(line | {"read_at": at})
        return found

    def tail(self, count=12):
        """Returns the last lines, for messages."""
        return "\n".join(text[:400] for _, text in self.lines[-count:])

    async def remove(self):
        """Removes what is left of an ended container."""
        await _run(self._runc("delete", "--force", self.id))
        shutil.rmtree(self.bundle, ignore_errors=True)


async def _run(command, timeout=TIMEOUT):
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), timeout)
    except asyncio.TimeoutError:
        process.kill()
        await process.wait()
        return None, ""
    return process.returncode, output.decode(errors="replace").strip()
