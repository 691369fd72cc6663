"""Judges what `pulsegate inject` made of manifests, without any of its code.

judge.py FILE: a list in JSON of {"before", "after", "port", "listen", "plain", "image", "secret", "only", "drain"}, the first
two being paths. For each: the objects of `after` are those of `before` with exactly the additions that are written down here,
Kubernetes 1.30 and 1.37 take them, and of the lines of `before` none is missing but those whose scalar the record names.
"""

import copy
import difflib
import json
import pathlib
import sys
import tomllib

import kubernetes_validate
import yaml

VERSIONS = ["1.30", "1.37"]
ANNOTATION = "pulsegate/injected"
WORKLOADS = ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"]


def objects(text):
    for document in yaml.safe_load_all(text):
        if document is None:
            continue
        if document["kind"] == "List":
            yield from document["items"]
        else:
            yield document


def key(resource):
    return resource["kind"], resource["metadata"].get("namespace"), resource["metadata"]["name"]


def pod_of(resource):
    return resource if resource["kind"] == "Pod" else resource["spec"]["template"]


def is_injected(resource, case):
    if resource["kind"] not in WORKLOADS or "helm.sh/hook" in (resource["metadata"].get("annotations") or {}):
        return False
    return not case["only"] or resource["metadata"]["name"] in case["only"]


def probe(path, period, failures):
    return {"httpGet": {"path": path, "port": 9090}, "periodSeconds": period, "failureThreshold": failures}


def sidecar(case, taken):
    name = "http" if case["plain"] else "https"
    port = {"name": f"pulsegate-{name}" if name in taken else name, "containerPort": case["listen"], "protocol": "TCP"}
    mounts = [{"name": "pulsegate-config", "mountPath": "/etc/pulsegate", "readOnly": True}]
    if not case["plain"]:
        mounts.append({"name": "pulsegate-tls", "mountPath": "/etc/pulsegate-tls", "readOnly": True})
    mounts.append({"name": "pulsegate-run", "mountPath": "/run/pulsegate"})
    return {
        "name": "pulsegate",
        "image": case["image"],
        "args": ["run", "-c", "/etc/pulsegate/proxy.toml"],
        "restartPolicy": "Always",
        "ports": [port, {"name": "pulsegate", "containerPort": 9090, "protocol": "TCP"}],
        "startupProbe": probe("/startupz", 1, 60),
        "livenessProbe": probe("/livez", 10, 3),
        "readinessProbe": probe("/readyz", 5, 2),
        "lifecycle": {"preStop": {"exec": {"command": ["/pulsegate", "drain", "--wait"]}}},
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": {
            "runAsUser": 65532,
            "runAsGroup": 65532,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }


def with_sidecar(resource, case):
    pod = pod_of(resource)["spec"]
    ports = [port for container in pod["containers"] for port in container.get("ports", [])]
    containers = pod.setdefault("initContainers", [])
    ends = [at for at, container in enumerate(containers) if container.get("restartPolicy") != "Always"]
    containers.insert(ends[-1] + 1 if ends else 0, sidecar(case, [port.get("name") for port in ports]))
    for container in pod["containers"]:
        container["lifecycle"] = container.get("lifecycle") or {}
        stop = container["lifecycle"].setdefault("preStop", {}).setdefault("sleep", {"seconds": 0})
        stop["seconds"] = max(stop["seconds"], case["drain"])
    pod["terminationGracePeriodSeconds"] = case["drain"] + pod.get("terminationGracePeriodSeconds", 30)
    volumes = [{"name": "pulsegate-config", "configMap": {"name": f'{resource["metadata"]["name"]}-pulsegate'}}]
    if not case["plain"]:
        pod["securityContext"] = pod.get("securityContext") or {}
        pod["securityContext"].setdefault("fsGroup", 65532)
        secret = case["secret"] or "pulsegate-tls"
        volumes.append({"name": "pulsegate-tls", "secret": {"secretName": secret, "defaultMode": 0o440}})
    volumes.append({"name": "pulsegate-run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    pod["volumes"] = pod.get("volumes", []) + volumes


def with_ports(service, workload, case):
    """The Service after its ports were moved; whether there were any."""
    labels = (pod_of(workload)["metadata"] if workload["kind"] != "Pod" else workload["metadata"])["labels"]
    selector = service["spec"].get("selector")
    if not selector or not selector.items() <= labels.items():
        return False
    containers = pod_of(workload)["spec"]["containers"]
    names = {port.get("name"): port["containerPort"] for container in containers for port in container.get("ports", [])}
    is_moved = False
    numbers = [port["port"] for port in service["spec"]["ports"]]
    for port in service["spec"]["ports"]:
        target = port.get("targetPort", port["port"])
        if names.get(target, target) == case["port"]:
            is_moved = True
            port["targetPort"] = case["listen"]
            if port["port"] == 80 and not case["plain"] and 443 not in numbers and service["spec"].get("clusterIP") != "None":
                port["port"] = 443
    return is_moved


def expected(before, case):
    """The objects that should come out, and the keys of those that carry a record."""
    changed = set()
    found = copy.deepcopy(before)
    for workload in [resource for resource in found if is_injected(resource, case)]:
        for service in [resource for resource in found if resource["kind"] == "Service"]:
            same = service["metadata"].get("namespace") == workload["metadata"].get("namespace")
            if same and with_ports(service, workload, case):
                changed.add(key(service))
        with_sidecar(workload, case)
        changed.add(key(workload))
    return found, changed


def taken_record(resource):
    """Removes the record from an object and returns it."""
    annotations = resource["metadata"]["annotations"]
    record = json.loads(annotations.pop(ANNOTATION))
    if not annotations and "/metadata/annotations" in record.get("added", []):
        del resource["metadata"]["annotations"]
    return record


def judge(case):
    before_text, after_text = (pathlib.Path(case[side]).read_bytes().decode() for side in ("before", "after"))
    before, after = list(objects(before_text)), list(objects(after_text))
    for resource in after:
        for version in VERSIONS:
            # A kind without a schema raises too.
            kubernetes_validate.validate(resource, version, strict=True)
    wanted, changed = expected(before, case)
    replaced = 0
    for resource in after[: len(before)]:
        if key(resource) in changed:
            replaced += len(taken_record(resource).get("was", {}))
    for resource, want in zip(after, wanted):
        assert resource == want, f"{key(want)}:\n{yaml.dump(want)}\nis\n{yaml.dump(resource)}"
    added = after[len(before) :]
    workloads = [resource for resource in before if is_injected(resource, case)]
    assert workloads, "no workload"
    assert [key(resource) for resource in added] == [
        ("ConfigMap", workload["metadata"].get("namespace"), f'{workload["metadata"]["name"]}-pulsegate')
        for workload in workloads
    ], added
    for config_map in added:
        assert taken_record(config_map)["document"] is True
        settings = tomllib.loads(config_map["data"]["proxy.toml"])
        assert settings["upstream"]["url"] == f'http://127.0.0.1:{case["port"]}', settings
        assert settings["listen"]["address"].endswith(f':{case["listen"]}'), settings
        assert (settings["tls"].get("mode") == "off") is case["plain"], settings
    lines = difflib.ndiff(before_text.splitlines(keepends=True), after_text.splitlines(keepends=True))
    gone = [line[2:] for line in lines if line.startswith("- ")]
    # An empty collection may have a line of its own.
    assert len(gone) <= replaced, f"{replaced} scalars are replaced, and these lines are gone: {gone}"


def main():
    for case in json.loads(pathlib.Path(sys.argv[1]).read_text()):
        try:
            judge(case)
        except Exception as error:
            print(f'{case["before"]}: {type(error).__name__}: {error}', file=sys.stderr)
            return 1
        print("ok", case["before"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
