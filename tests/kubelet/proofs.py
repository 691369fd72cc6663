"""Proofs about a manifest on a replayed kubelet; each is a function of this file with its name.

    unshare --mount --net --pid --fork --kill-child --mount-proc \\
        python proofs.py rolling_update --manifest pod.yaml --image FOLDER --tls FOLDER

The image is an exported one, with its files in `root` and its configuration in `config.json`: a run of the tests leaves it in
target/tmp/image-*/first. The folder of `--tls` has ca.pem, server.pem and server.key, and the same files of another certificate
in `next`. A proof prints every event with its time, and fails with what it saw.
"""

import argparse
import asyncio
import os
import pathlib
import signal
import ssl
import sys
import tempfile
import time
import tomllib

import manifest as manifests
from manifest import Manifest
from node import SERVICE, Node

# The time that a stalled machine may add to a limit.
STALL = 4.0


class Proof:
    """What every proof needs: the node, and the settings of the drain in the manifest."""

    def __init__(self, node, tls):
        self.node, self.tls = node, pathlib.Path(tls)
        (text,) = [data["proxy.toml"] for data in node.config_maps.values() if "proxy.toml" in data]
        self.settings = tomllib.loads(text)
        # Behind an ingress that terminates TLS.
        self.plain = self.settings.get("tls", {}).get("mode") == "off"
        drain = self.settings.get("drain", {})
        self.delay, self.window = (_seconds(drain.get(key, default)) for key, default in (("delay", "5s"), ("window", "15s")))

    async def clients(self, *arguments):
        return await self.node.clients(None if self.plain else self.tls, *arguments)


async def rolling_update(node, proof, count):
    """A second pod becomes ready, and the first is deleted under `count` clients and a steady load of requests."""
    await node.balance()
    old = await node.pod("old")
    clients = await proof.clients("--websockets", str(count), "--requests", "10")
    new = await node.pod("new")
    took = await old.delete()
    seen = await _all_back(clients, count)

    since = [at - old.deleted_at for at, _, _ in seen["closes"]]
    codes = counts_of(code for _, code, _ in seen["closes"])
    back = [seconds for _, _, seconds in seen["closes"] if seconds is not None]
    quarters = counts_of(int((at - proof.delay) / proof.window * 4) for at in since)
    print(f"{min(since):.1f} s to {max(since):.1f} s after the deletion, per quarter of the window {quarters}")
    print(f"connected again {len(back)}, the slowest after {max(back):.1f} s")
    print(f"requests {seen['requests']}, failed {len(seen['failed'])}, repeated on a new connection {seen['retried']}")
    assert codes == {1012: count}, codes
    assert min(since) >= proof.delay - 0.5, f"closed before the delay is over: {min(since):.1f} s"
    assert max(since) <= proof.delay + proof.window + STALL, f"closed after the window: {max(since):.1f} s"
    assert all(quarters.get(quarter, 0) >= count / 20 for quarter in range(4)), f"not spread over the window: {quarters}"
    assert len(back) == count and seen["open"] == count, f"{len(back)} of {count} are connected again"
    assert not seen["refused"], f"refused: {seen['refused'][:5]}"
    assert seen["requests"] > 100 and not seen["failed"], f"failed requests: {seen['failed'][:5]}"
    _ended_well(node, old)
    grace = old.spec["terminationGracePeriodSeconds"]
    assert took < grace, f"the pod took {took:.1f} s of its {grace} s"
    assert await node.metrics(new, "pulsegate_draining") == 0
    if proof.settings.get("listen", {}).get("address", "").startswith("["):
        await _answers_over_ipv6(proof, new)


async def _answers_over_ipv6(proof, pod):
    """Fails unless the pod, which the balancer reaches over IPv4, answers over IPv6 too."""
    port = pod.node.ports[0]
    target = pod.port(port.get("targetPort", port["port"]))
    tls = {} if proof.plain else {"ssl": ssl.create_default_context(cafile=proof.tls / "ca.pem"), "server_hostname": "localhost"}
    reader, writer = await asyncio.wait_for(asyncio.open_connection(pod.address6, target, **tls), 20)
    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    line = await asyncio.wait_for(reader.readline(), 20)
    writer.transport.abort()
    assert line.startswith(b"HTTP/1.1 200"), line
    pod.event("pulsegate", "answers", f"[{pod.address6}]:{target}")


async def loses_clients(node, proof, count):
    """The counterexample: without a folder for the admin socket and without preStop nothing drains. The app ends first, and
    all its clients are thrown out at the same moment."""
    await node.balance()
    old = await node.pod("old", manifests.without_drain)
    clients = await proof.clients("--websockets", str(count), "--requests", "10")
    await node.pod("new")
    code, output = await old.proxy().exec(["/pulsegate", "drain"], 20)
    assert code == 1 and "admin.sock" in output, f"exit {code}: {output}"
    print(f"drain without /run/pulsegate: exit {code}: {output}")
    await old.delete()
    seen = await clients.report()
    print(f"requests {seen['requests']}, failed {len(seen['failed'])}: {seen['failed'][:3]}")
    since = sorted(at - old.deleted_at for at, _, _ in seen["closes"])
    print(f"closes {counts_of(code for _, code, _ in seen['closes'])}, {since[0]:.2f} s to {since[-1]:.2f} s after the deletion")
    assert len(since) == count
    assert since[-1] - since[0] < proof.window / 4, "they are not thrown out at once"


async def drain_without_folder(node, proof, _count):
    """The other half of the counterexample: with preStop, and without the folder, the hook fails."""

    def change(template):
        proxy = manifests.sidecar(template)
        proxy["volumeMounts"] = [m for m in proxy["volumeMounts"] if m["mountPath"] != "/run/pulsegate"]
        for container in template["spec"]["containers"]:
            container["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}

    await node.balance()
    pod = await node.pod("only", change)
    await pod.delete()
    (detail,) = [d for _, who, what, d in node.events if (who, what) == ("only/pulsegate", "preStop done")]
    assert "exit 1" in detail, detail


async def takes_up_changes(node, proof, _count):
    """A certificate and a configuration are swapped through `..data`; broken ones are kept out. No session notices."""
    await node.balance()
    pod = await node.pod("only")
    clients = await proof.clients("--websockets", "20")
    first = await _certificate(proof.tls)
    (config_map,) = [name for name, data in node.config_maps.items() if "proxy.toml" in data]
    (secret,) = [v["secret"]["secretName"] for v in pod.spec["volumes"] if "secret" in v]
    good, good_secret = dict(node.config_maps[config_map]), dict(node.secrets[secret])

    async def reload(what, results, successful):
        """Updates the volumes; waits for the reload's result."""
        name = f'pulsegate_config_reloads_total{{result="{results}"}}'
        before = await _metric(node, pod, name)
        pod.update_volumes()
        deadline = time.monotonic() + 30
        while await _metric(node, pod, name) <= before:
            assert time.monotonic() < deadline, f"{what}: no reload\n{pod.proxy().tail()}"
            await asyncio.sleep(0.1)
        assert await node.metrics(pod, "pulsegate_config_last_reload_successful") == successful, what
        node.event("only/pulsegate", "reload", f"{what}: {results}")

    fresh = {"tls.crt": (proof.tls / "next/server.pem").read_text(), "tls.key": (proof.tls / "next/server.key").read_text()}
    node.secrets[secret] = good_secret | {"tls.key": fresh["tls.key"]}
    await reload("a key without its certificate", "failed", 0)
    assert await _certificate(proof.tls) == first, "the certificate that works stays"
    node.secrets[secret] = fresh
    await reload("the next certificate", "ok", 1)
    second = await _certificate(proof.tls / "next")
    assert second != first, "the next certificate is in use"

    node.config_maps[config_map] = {"proxy.toml": good["proxy.toml"] + "\n[drain\n"}
    await reload("a file that is not TOML", "failed", 0)
    node.config_maps[config_map] = {"proxy.toml": good["proxy.toml"].replace("[drain]", "[drain]\nwindw = \"1s\"")}
    await reload("an unknown key", "failed", 0)
    node.config_maps[config_map] = {"proxy.toml": good["proxy.toml"].replace('["same-host"]', '["https://elsewhere.example"]')}
    await reload("another origin", "ok", 1)
    refused = await _upgrade_of_same_host(proof)
    assert refused.startswith("HTTP/1.1 403"), refused

    seen = await clients.report()
    assert (seen["closes"], seen["open"]) == ([], 20), f"a reload has closed sessions: {seen['closes']}"
    assert pod.restarts == {} and pod.ready


async def _upgrade_of_same_host(proof):
    """Returns the first line of the response to an upgrade from a page of the same host."""
    context = ssl.create_default_context(cafile=proof.tls / "next/ca.pem")
    reader, writer = await asyncio.open_connection(SERVICE, 443, ssl=context, server_hostname="localhost")
    writer.write(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    line = await asyncio.wait_for(reader.readline(), 20)
    writer.transport.abort()
    return line.decode()


async def _all_back(clients, count):
    """Waits until all clients have been closed and are connected again; returns what they have seen."""
    deadline = time.monotonic() + 60
    while (seen := await clients.report())["open"] < count or len(seen["closes"]) < count:
        assert time.monotonic() < deadline, f"connected again: {seen['open']} of {count}; {seen['refused'][-3:]}"
        await asyncio.sleep(0.1)
    print(f"closes {counts_of(code for _, code, _ in seen['closes'])}, attempts refused meanwhile {len(seen['refused'])}")
    return seen


async def app_crashes(node, proof, _count):
    """The app is killed: the sidecar stays, its clients get 1012, the app is started again, and they come back."""
    await node.balance()
    pod = await node.pod("only")
    clients = await proof.clients("--websockets", "50")
    name = pod.app()
    await pod.containers[name].kill(signal.SIGKILL)
    await node.until("the app is started again", lambda: pod.restarts.get(name) == 1)
    await node.until("the pod is ready again", lambda: pod.ready)
    codes = counts_of(code for _, code, _ in (await _all_back(clients, 50))["closes"])
    assert codes == {1012: 50}, codes
    assert pod.restarts == {name: 1}, f"only the app is started again: {pod.restarts}"
    assert pod.proxy().running


async def app_hangs(node, proof, _count):
    """An app that listens on every address of the pod, with probes of its own, hangs: the kubelet starts it again, and the
    sidecar stays."""

    def change(template):
        (app,) = template["spec"]["containers"]
        app["env"] = [{"name": "HOST", "value": "0.0.0.0"}]
        http_get = {"httpGet": {"path": "/healthz", "port": 3000}}
        app["readinessProbe"] = http_get | {"periodSeconds": 1}
        app["livenessProbe"] = http_get | {
            "initialDelaySeconds": 10, "periodSeconds": 1, "timeoutSeconds": 3, "terminationGracePeriodSeconds": 4,
        }
        app["lifecycle"] = {"preStop": {"sleep": {"seconds": 1}}}

    await node.balance()
    pod = await node.pod("only", change)
    clients = await proof.clients("--websockets", "20")
    name = pod.app()
    await pod.containers[name].kill(signal.SIGSTOP)
    await node.until("the app is started again", lambda: pod.restarts.get(name) == 1)
    await node.until("the pod is ready again", lambda: pod.ready)
    await _all_back(clients, 20)
    assert pod.restarts == {name: 1}, f"only the app is started again: {pod.restarts}"
    assert (f"only/{pod.app()}", "SIGKILL") in [(who, what) for _, who, what, _ in node.events], "a stopped process is killed"


async def proxy_crashes(node, proof, _count):
    """The sidecar is killed, and leaves its socket in the volume: it is started again, the app stays, the clients come back,
    and the pod still drains."""
    await node.balance()
    pod = await node.pod("only")
    clients = await proof.clients("--websockets", "50")
    await pod.proxy().kill(signal.SIGKILL)
    await node.until("the sidecar is started again", lambda: pod.restarts.get("pulsegate") == 1)
    await node.until("the pod is ready again", lambda: pod.ready)
    codes = counts_of(code for _, code, _ in (await _all_back(clients, 50))["closes"])
    assert codes == {1006: 50}, codes
    await pod.delete()
    codes = counts_of(code for _, code, _ in (await clients.report())["closes"])
    assert codes == {1006: 50, 1012: 50}, codes
    _ended_well(node, pod, {"pulsegate": 1})


async def client_never_closes(node, proof, _count):
    """A client that neither answers the Close nor leaves does not hold the drain. A second sidecar, started later, ends before
    the proxy."""

    def change(template):
        image = template["spec"]["containers"][0]["image"]
        script = "process.on('SIGTERM', () => process.exit(0)); setInterval(() => {}, 1000)"
        second = {"name": "later", "image": image, "command": ["node", "-e", script], "restartPolicy": "Always"}
        template["spec"]["initContainers"].append(second)

    await node.balance()
    pod = await node.pod("only", change)
    stubborn = await proof.clients("--websockets", "3", "--stubborn")
    polite = await proof.clients("--websockets", "20")
    took = await pod.delete()
    for clients, count in ((stubborn, 3), (polite, 20)):
        codes = counts_of(code for _, code, _ in (await clients.report())["closes"])
        assert codes == {1012: count}, codes
    _ended_well(node, pod)
    order = [(who, what) for _, who, what, _ in node.events]
    signals = [order.index((f"only/{name}", "SIGTERM")) for name in (pod.app(), "later", "pulsegate")]
    ends = [order.index((f"only/{name}", "ended")) for name in (pod.app(), "later", "pulsegate")]
    assert signals[0] < ends[0] < signals[1] < ends[1] < signals[2] < ends[2], f"not in reverse order: {order}"
    assert took < pod.spec["terminationGracePeriodSeconds"], took


async def app_never_exits(node, proof, _count):
    """An app without an end is killed at the end of the grace period; its clients were closed before, within the window."""
    await node.balance()

    def change(template):
        for container in template["spec"]["containers"]:
            container.setdefault("env", []).append({"name": "IGNORE_SIGTERM", "value": "1"})

    pod = await node.pod("only", change)
    clients = await proof.clients("--websockets", "50")
    sleep = max(c["lifecycle"]["preStop"]["sleep"]["seconds"] for c in pod.spec["containers"])
    grace = sleep + 3
    took = await pod.delete(grace)
    seen = await clients.report()
    codes = counts_of(code for _, code, _ in seen["closes"])
    last = max(at for at, _, _ in seen["closes"]) - pod.deleted_at
    assert codes == {1012: 50} and last <= proof.delay + proof.window + STALL, f"{codes}, the last after {last:.1f} s"
    assert (f"only/{pod.app()}", "SIGKILL") in [(who, what) for _, who, what, _ in node.events], "the app is killed"
    _ended_well(node, pod, in_time=False)
    assert grace - 1 <= took <= grace + 2 + STALL, f"{took:.1f} s with a grace period of {grace} s"


def _ended_well(node, pod, restarts=None, in_time=True):
    """Fails unless no container but these was started again, and unless the hook of the sidecar and the sidecar ended by
    themselves, in the order of the kubelet. Where the app has used up the grace period, the sidecar no longer waits for it."""
    mine = [(who.removeprefix(f"{pod.name}/"), what, detail) for _, who, what, detail in node.events if who.startswith(f"{pod.name}/")]
    mine = mine[mine.index(next(event for event in mine if event[1] == "deleted")):]
    order = [event[:2] for event in mine]
    (hook,) = [detail for who, what, detail in mine if (who, what) == ("pulsegate", "preStop done")]
    assert "exit 0" in hook, f"drain --wait: {hook}"
    for app in [container["name"] for container in pod.spec["containers"]]:
        assert order.index(("pulsegate", "preStop done")) < order.index((app, "SIGTERM")), f"the app outlives the drain: {order}"
        if in_time:
            assert order.index((app, "ended")) < order.index(("pulsegate", "SIGTERM")), f"the sidecar ends last: {order}"
    assert ("pulsegate", "SIGKILL") not in order, f"the sidecar ends by itself: {order}"
    (end,) = [detail for who, what, detail in mine if (who, what) == ("pulsegate", "ended")]
    assert end == "exit 0", f"the sidecar's end: {end}\n{pod.proxy().tail()}"
    assert pod.restarts == (restarts or {}), pod.restarts


async def _certificate(tls):
    """Returns the certificate that the Service presents."""
    context = ssl.create_default_context(cafile=tls / "ca.pem")
    _, writer = await asyncio.open_connection(SERVICE, 443, ssl=context, server_hostname="localhost")
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return certificate


async def _metric(node, pod, name):
    try:
        return await node.metrics(pod, name)
    except StopIteration:
        return 0


def counts_of(values):
    found = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items()))


def _seconds(text):
    return float(text.removesuffix("s"))


PROOFS = [
    rolling_update, loses_clients, drain_without_folder, takes_up_changes, app_crashes, app_hangs, proxy_crashes,
    client_never_closes, app_never_exits,
]


async def run(arguments, work):
    node = Node(work, Manifest(arguments.manifest), arguments.image, arguments.tls)
    proof = next(proof for proof in PROOFS if proof.__name__ == arguments.proof)
    try:
        await proof(node, Proof(node, arguments.tls), arguments.clients)
    except BaseException:
        for pod in node.pods:
            for container in pod.containers.values():
                print(f"--- the last lines of {container.id}\n{container.tail()}", file=sys.stderr)
        raise
    finally:
        for pod in node.pods:
            if pod.deleted_at is None:
                await pod.delete(0)
    if node.failures:
        raise node.failures[0]
    print(f"ok: {arguments.proof}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof", choices=[proof.__name__ for proof in PROOFS])
    parser.add_argument("--manifest", action="append", required=True)
    parser.add_argument("--image", required=True)
    parser.add_argument("--tls", required=True)
    parser.add_argument("--clients", type=int, default=100)
    arguments = parser.parse_args()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="pulsegate-kubelet-", dir=pathlib.Path(arguments.image).parent) as work:
        asyncio.run(run(arguments, work))


main()
