"""Probes of a container, as the kubelet makes them (pkg/kubelet/prober)."""

import asyncio
import http.client
import time

from manifest import port


class Probe:
    """One probe with its thresholds; `passed` is the last result, or nothing before the first."""

    def __init__(self, kind, settings, pod, container):
        self.kind, self.settings, self.pod, self.container = kind, settings, pod, container
        # A container is not ready until it is probed, and alive until it fails.
        self.passed = {"startup": None, "readiness": False, "liveness": True}[kind]
        self.reason = "not probed yet"

    async def run(self, changed):
        """Probes until it is cancelled; calls `changed` after each change of the result."""
        successes = failures = 0
        await asyncio.sleep(self.settings.get("initialDelaySeconds", 0))
        while True:
            began = time.monotonic()
            self.reason = await self._attempt()
            if self.reason is None:
                successes, failures = successes + 1, 0
            else:
                successes, failures = 0, failures + 1
            before = self.passed
            if successes >= self.settings.get("successThreshold", 1):
                self.passed = True
            elif failures >= self.settings.get("failureThreshold", 3):
                self.passed = False
            if self.passed != before:
                await changed(self)
            await asyncio.sleep(max(0.0, self.settings.get("periodSeconds", 10) - (time.monotonic() - began)))

    async def _attempt(self):
        """Returns nothing, or why it failed."""
        timeout = self.settings.get("timeoutSeconds", 1)
        if "exec" in self.settings:
            code, output = await self.container.exec(self.settings["exec"]["command"], timeout)
            return None if code == 0 else f"exit {code}: {output}"
        if "tcpSocket" in self.settings:
            return await asyncio.to_thread(self._tcp, self.settings["tcpSocket"], timeout)
        assert "httpGet" in self.settings, f"probes of this kind are not replayed: {self.settings}"
        return await asyncio.to_thread(self._http, self.settings["httpGet"], timeout)

    def _connection(self, settings, timeout):
        # To the address of the pod, from the node: what listens on the pod's loopback is not reached.
        host = settings.get("host", self.pod.address)
        return http.client.HTTPConnection(host, port(self.pod.template, settings["port"]), timeout=timeout)

    def _tcp(self, settings, timeout):
        connection = self._connection(settings, timeout)
        try:
            connection.connect()
        except OSError as error:
            return str(error)
        finally:
            connection.close()

    def _http(self, settings, timeout):
        assert settings.get("scheme", "HTTP") == "HTTP", "probes by HTTPS are not replayed"
        connection = self._connection(settings, timeout)
        headers = {header["name"]: header["value"] for header in settings.get("httpHeaders", [])}
        try:
            connection.request("GET", settings.get("path", "/"), headers={"User-Agent": "kube-probe/1.34"} | headers)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return str(error) or type(error).__name__
        finally:
            connection.close()
        return None if 200 <= status < 400 else f"HTTP {status}"
