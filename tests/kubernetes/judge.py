"""Judges manifests as a cluster would, and what a cluster would find out only later: `judge.py --help`.

Every `…_problems` function yields sentences about what is wrong.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.parse

import yaml

import schemas

WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "Job"}
SIDECAR = "pulsegate"


class Manifests:
    """The resources of one `kubectl apply`."""

    def __init__(self, text, judge):
        self.all = [resource for resource in yaml.safe_load_all(text) if resource]
        self.judge = judge

    def of(self, *kinds):
        return [resource for resource in self.all if resource["kind"] in kinds]

    def names(self, *kinds):
        return {resource["metadata"]["name"] for resource in self.of(*kinds)}

    def workloads(self):
        return [(name_of(resource), resource["spec"]["template"]) for resource in self.of(*WORKLOADS)]

    def excluded(self):
        """The workloads whose label keeps the component away."""
        labelled = [r for r in self.of(*WORKLOADS) if r["metadata"].get("labels", {}).get("pulsegate-sidecar") == "none"]
        return {name_of(resource) for resource in labelled}

    def problems(self):
        if not self.workloads():
            yield "no workload"
        invalid = [problem for resource in self.all for problem in schemas.problems(resource)]
        yield from invalid
        if invalid:
            return
        for name, template in self.workloads():
            pod = template["spec"]
            checks = [restricted_problems(pod), name_problems(pod, self)]
            if sidecar(pod):
                checks += [sidecar_problems(pod), port_problems(pod), configuration_problems(pod, self)]
            elif not self.judge.without_sidecar and name not in self.excluded():
                checks += [["no sidecar"]]
            for check in checks:
                yield from (f"{name}: {problem}" for problem in check)
        for check in (selector_problems, service_problems, policy_problems, scaling_problems, monitor_problems):
            yield from check(self)


def name_of(resource):
    return f'{resource["kind"]} {resource["metadata"]["name"]}'


def sidecar(pod):
    return next((c for c in pod.get("initContainers", []) if c["name"] == SIDECAR), None)


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def ports(pod):
    """The declared ports by number, each with its container."""
    declared = {}
    for container in containers(pod):
        for port in container.get("ports", []):
            declared[port["containerPort"]] = (container["name"], port.get("name"))
    return declared


def restricted_problems(pod):
    """The level `restricted` of the Pod Security Standards, and a read-only root, a memory limit and no token on top."""
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(key):
            yield f"{key} is set"
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken is not false"
    shared = pod.get("securityContext", {})
    for container in containers(pod):
        own = container.get("securityContext", {})
        wanted = {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
            "readOnlyRootFilesystem": True,
        }
        for key, value in wanted.items():
            if own.get(key, shared.get(key)) != value:
                yield f'container {container["name"]}: {key} is {own.get(key, shared.get(key))}, not {value}'
        if not own.get("runAsUser", shared.get("runAsUser", 0)) > 0:
            yield f'container {container["name"]}: runAsUser is root or not a number'
        if own.get("privileged") or "procMount" in own or any("hostPort" in p for p in container.get("ports", [])):
            yield f'container {container["name"]}: privileged, procMount or hostPort'
        if not container.get("resources", {}).get("limits", {}).get("memory"):
            yield f'container {container["name"]}: no limit for memory'
    kinds = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in pod.get("volumes", []):
        if not set(volume) - {"name"} <= kinds:
            yield f'volume {volume["name"]}: a kind that is not allowed'


def name_problems(pod, manifests):
    """What names something else: volumes, ConfigMaps, Secrets, service accounts."""
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    for kind, names in (("container", [c["name"] for c in containers(pod)]), ("volume", [v["name"] for v in pod.get("volumes", [])])):
        if len(set(names)) != len(names):
            yield f"two of one name among {kind}s: {names}"
    mounted = set()
    for container in containers(pod):
        for mount in container.get("volumeMounts", []):
            mounted.add(mount["name"])
            if mount["name"] not in volumes:
                yield f'container {container["name"]} mounts {mount["name"]}, which is no volume'
    for name in volumes.keys() - mounted:
        yield f"volume {name} is mounted nowhere"
    certificates = {c["spec"]["secretName"] for c in manifests.of("Certificate")}
    secrets = manifests.names("Secret") | certificates | set(manifests.judge.secret)
    for volume in volumes.values():
        config_map, secret = volume.get("configMap", {}).get("name"), volume.get("secret", {}).get("secretName")
        if config_map and config_map not in manifests.names("ConfigMap"):
            yield f"no ConfigMap {config_map}"
        if secret and secret not in secrets:
            yield f"no Secret {secret}: there are {sorted(secrets)}"
    account = pod.get("serviceAccountName")
    if account and account not in manifests.names("ServiceAccount"):
        yield f"no ServiceAccount {account}"


def sidecar_problems(pod):
    """The sidecar, and what the pod needs around it."""
    its = sidecar(pod)
    if its.get("restartPolicy") != "Always":
        yield "pulsegate is no native sidecar: restartPolicy is not Always"
    inits = pod["initContainers"]
    for late in inits[inits.index(its) + 1 :]:
        if late.get("restartPolicy") != "Always":
            yield f'init container {late["name"]}, which ends, stands behind the sidecar'
    if its.get("lifecycle") != {"preStop": {"exec": {"command": ["/pulsegate", "drain", "--wait"]}}}:
        yield f'no drain in preStop: {its.get("lifecycle")}'
    mounts = {mount["name"]: mount for mount in its["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    if mounts.get("pulsegate-run", {}).get("mountPath") != "/run/pulsegate" or mounts["pulsegate-run"].get("readOnly"):
        yield "no writable /run/pulsegate: `drain` has no socket"
    elif "emptyDir" not in volumes.get("pulsegate-run", {}):
        yield "/run/pulsegate is no emptyDir"
    if its["args"] != ["run", "-c", mounts["pulsegate-config"]["mountPath"] + "/proxy.toml"]:
        yield f'args are {its["args"]}'
    if "pulsegate-tls" in mounts:
        if volumes.get("pulsegate-tls", {}).get("secret", {}).get("defaultMode") != 0o440:
            yield "the key is not readable by its group alone"
        if "fsGroup" not in pod.get("securityContext", {}):
            yield "no fsGroup: the sidecar cannot read the key"


def port_problems(pod):
    declared, its = ports(pod), sidecar(pod)
    names = {port["name"]: port["containerPort"] for port in its["ports"]}
    for probe, path in (("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        if its[probe]["httpGet"] != {"path": path, "port": names["pulsegate"]}:
            yield f"{probe} is {its[probe]}"
    for container in pod["containers"]:
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if port and (container["name"], port) not in declared.values() and declared.get(port, ("",))[0] != container["name"]:
                yield f'container {container["name"]}: {probe} asks port {port}, which it does not declare'


def configuration_problems(pod, manifests):
    """proxy.toml as the built program reads it, and what the pod makes of it."""
    its = sidecar(pod)
    mounts = {mount["name"]: mount["mountPath"] for mount in its["volumeMounts"]}
    name = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "pulsegate-config")
    texts = [m["data"]["proxy.toml"] for m in manifests.of("ConfigMap") if m["metadata"]["name"] == name]
    if not texts:
        return
    names = {port["name"]: port["containerPort"] for port in its["ports"]}
    plain = "pulsegate-tls" not in mounts
    everywhere = r'"(?:\[::\]|0\.0\.0\.0)'
    for key, value in {
        "address": f'{everywhere}:{names["http" if plain else "https"]}"',
        "health": f'{everywhere}:{names["pulsegate"]}"',
        "format": '"json"',
        "allow": r'\["(?:same-host|https://)',
    }.items():
        if not re.search(rf"^{key} = {value}", texts[0], re.MULTILINE):
            yield f"proxy.toml has no {key} = {value}:\n{texts[0]}"
    for key, file in (("certificate", "tls.crt"), ("private_key", "tls.key")):
        if not plain and f'{key} = "{mounts["pulsegate-tls"]}/{file}"' not in texts[0]:
            yield f"proxy.toml does not find {file} of the Secret"
    facts = manifests.judge.check(texts[0])
    if isinstance(facts, str):
        yield facts
        return
    app = [port["containerPort"] for container in pod["containers"] for port in container.get("ports", [])]
    upstream = urllib.parse.urlsplit(facts["upstream"])
    if upstream.hostname != "127.0.0.1" or (app and upstream.port not in app):
        yield f'proxy.toml leads to {facts["upstream"]}, and the app listens on {app}'
    drain = math.ceil(facts["drain"]["total_s"])
    for container in pod["containers"]:
        sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        kept = container["name"] in manifests.judge.own_hook
        if sleep < drain and not kept:
            yield f'container {container["name"]} sleeps {sleep} s before its end, and the drain takes {drain} s'
        if sleep > pod.get("terminationGracePeriodSeconds", 30):
            yield f'container {container["name"]} sleeps for longer than the grace period'
    if not pod.get("terminationGracePeriodSeconds", 30) > drain:
        yield f'a grace period of {pod.get("terminationGracePeriodSeconds")} s for a drain of {drain} s'


def selector_problems(manifests):
    for resource in manifests.of("Deployment", "StatefulSet", "DaemonSet"):
        labels = resource["spec"]["template"]["metadata"].get("labels", {})
        if not resource["spec"]["selector"]["matchLabels"].items() <= labels.items():
            yield f"{name_of(resource)} does not select its own pods"
    for resource in manifests.of("PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        key = "podSelector" if resource["kind"] == "NetworkPolicy" else "selector"
        if not selected(manifests, resource["spec"][key]["matchLabels"]):
            yield f"{name_of(resource)} selects no pod"


def selected(manifests, labels):
    pods = [t for _, t in manifests.workloads() if labels.items() <= t.get("metadata", {}).get("labels", {}).items()]
    return [template["spec"] for template in pods]


def service_problems(manifests):
    for service in manifests.of("Service"):
        pods = selected(manifests, service["spec"]["selector"])
        if not pods:
            yield f"{name_of(service)} selects no pod"
        for pod in pods:
            for port in service["spec"]["ports"]:
                owner = ports(pod).get(port["targetPort"], (None,))[0]
                if owner is None:
                    yield f'{name_of(service)}: no container has the port {port["targetPort"]} as a number'
                elif sidecar(pod) and owner != SIDECAR:
                    yield f'{name_of(service)} leads to {owner}, past the proxy'


def policy_problems(manifests):
    for policy in manifests.of("NetworkPolicy"):
        for pod in selected(manifests, policy["spec"]["podSelector"]["matchLabels"]):
            open_ports = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
            its = [p["containerPort"] for p in sidecar(pod)["ports"]] if sidecar(pod) else []
            if sorted(open_ports) != sorted(its):
                yield f"{name_of(policy)} opens {open_ports}, and the proxy listens on {its}"


def scaling_problems(manifests):
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        found = [r for r in manifests.of(target["kind"]) if r["metadata"]["name"] == target["name"]]
        if not found:
            yield f"{name_of(scaler)} scales {target}, which is missing"
        metrics = {m["type"]: m for m in scaler["spec"]["metrics"]}
        if metrics["Pods"]["pods"]["metric"]["name"] != "pulsegate_websockets_active":
            yield f"{name_of(scaler)} does not count WebSockets"
        for resource in found:
            if "replicas" in resource["spec"]:
                yield f"{name_of(resource)} sets replicas, and {name_of(scaler)} does too"
            names = [c["name"] for c in resource["spec"]["template"]["spec"]["containers"]]
            if metrics["ContainerResource"]["containerResource"]["container"] not in names:
                yield f"{name_of(scaler)} measures a container that is missing"


def monitor_problems(manifests):
    for monitor in manifests.of("PodMonitor"):
        for pod in selected(manifests, monitor["spec"]["selector"]["matchLabels"]):
            names = {name for _, name in ports(pod).values()}
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in names:
                    yield f'{name_of(monitor)}: no port is named {endpoint["port"]}'


class Judge:
    def __init__(self, arguments):
        self.__dict__.update(vars(arguments))
        self.read = {}

    def check(self, configuration):
        """What `pulsegate check` finds: facts, or a sentence about what is wrong."""
        if configuration not in self.read:
            self.read[configuration] = self.run(configuration)
        return self.read[configuration]

    def run(self, configuration):
        environment = {"PATH": os.environ["PATH"]}
        if 'mode = "off"' not in configuration:
            environment["PULSEGATE__TLS__CERTIFICATE"] = self.certificate
            environment["PULSEGATE__TLS__PRIVATE_KEY"] = self.private_key
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "proxy.toml"
            file.write_text(configuration)
            command = [self.pulsegate, "check", "--format", "json", "-c", str(file)]
            outcome = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        try:
            facts = json.loads(outcome.stdout)
        except json.JSONDecodeError:
            return f"`pulsegate check` printed no JSON: {outcome.stdout}{outcome.stderr}"
        if outcome.returncode != 0 or facts.get("warnings"):
            return f"`pulsegate check`: {facts['errors']} {facts.get('warnings')}\n{configuration}"
        return facts["serves"]


def parse(arguments):
    parser = argparse.ArgumentParser(description="Judges manifests; prints what is wrong, and fails.")
    parser.add_argument("file", nargs="+", help="manifests, each as they are applied together")
    parser.add_argument("--pulsegate", required=True, help="the built program")
    parser.add_argument("--certificate", required=True, help="a certificate for its check")
    parser.add_argument("--private-key", required=True)
    parser.add_argument("--secret", action="append", default=[], help="a Secret that is in the cluster already")
    parser.add_argument("--own-hook", action="append", default=[], help="a container that keeps its own preStop hook")
    parser.add_argument("--without-sidecar", action="store_true", help="the app as it was")
    parser.add_argument("--alike", action="store_true", help="all files must have the same sidecar and drain alike")
    return parser.parse_args(arguments)


def unlike(judge):
    """Yields where a sidecar, its volumes or what its configuration means differ from those of the first file."""
    first = None
    for file in judge.file:
        manifests = Manifests(pathlib.Path(file).read_text(), judge)
        for name, template in manifests.workloads():
            pod = template["spec"]
            volumes = [volume for volume in pod["volumes"] if volume["name"].startswith(SIDECAR)]
            for volume in volumes:
                for kind, key in (("configMap", "name"), ("secret", "secretName")):
                    # Each has the name of its own release.
                    volume.get(kind, {}).pop(key, None)
            around = {key: pod.get(key) for key in ("securityContext", "terminationGracePeriodSeconds")}
            texts = [m["data"]["proxy.toml"] for m in manifests.of("ConfigMap")]
            seen = {
                "sidecar": sidecar(pod),
                "volumes": volumes,
                "pod": around,
                "lifecycle": [c.get("lifecycle") for c in pod["containers"]],
                "configuration": judge.check(texts[0]),
            }
            first = first or seen
            for part, value in seen.items():
                if value != first[part]:
                    yield f"{file}: {name}: another {part}: {value}\nand not {first[part]}"


def main():
    judge = Judge(parse(sys.argv[1:]))
    found = list(unlike(judge)) if judge.alike else []
    for file in judge.file:
        name = pathlib.Path(file).name
        found += [f"{name}: {problem}" for problem in Manifests(pathlib.Path(file).read_text(), judge).problems()]
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
