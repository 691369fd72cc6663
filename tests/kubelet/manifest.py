"""Manifests as a cluster would hold them: pod templates, Services, and the data of ConfigMaps and Secrets."""

import base64
import copy

import yaml

TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")


class Manifest:
    """The resources of some YAML files, as `kubectl apply` would send them."""

    def __init__(self, paths):
        self.resources = []
        for path in paths:
            with open(path) as file:
                for document in yaml.safe_load_all(file):
                    self._add(document)
        self.config_maps = {r["metadata"]["name"]: r.get("data", {}) for r in self._all("ConfigMap")}
        self.secrets = {r["metadata"]["name"]: _secret(r) for r in self._all("Secret")}

    def _add(self, document):
        if not document:
            return
        if document.get("kind") == "List":
            for item in document["items"]:
                self._add(item)
        else:
            self.resources.append(document)

    def _all(self, *kinds):
        return [resource for resource in self.resources if resource["kind"] in kinds]

    def template(self):
        """Returns a copy of the one pod template with the sidecar: its metadata and spec."""
        found = self._all("Pod") + [resource["spec"]["template"] for resource in self._all(*TEMPLATES)]
        # Others are those of tests and jobs.
        found = [template for template in found if sidecars(template)]
        assert len(found) == 1, f"{len(found)} pod templates have a native sidecar pulsegate, and one is needed"
        template = copy.deepcopy(found[0])
        template.setdefault("metadata", {})
        return template

    def services(self):
        """Returns the Services that select the pods of the template."""
        labels = self.template()["metadata"].get("labels", {})
        services = [s for s in self._all("Service") if s["spec"].get("selector", {}).items() <= labels.items()]
        assert services, "no Service selects the pods"
        return services


def _secret(resource):
    data = {key: base64.b64decode(value).decode() for key, value in resource.get("data", {}).items()}
    return data | resource.get("stringData", {})


def containers(template):
    """Returns all containers in the order of their start."""
    spec = template["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def sidecars(template, name="pulsegate"):
    """Returns the native sidecars of this name."""
    found = template["spec"].get("initContainers", [])
    return [c for c in found if c["name"] == name and c.get("restartPolicy") == "Always"]


def sidecar(template):
    """Returns the sidecar."""
    (found,) = sidecars(template)
    return found


def port(template, value):
    """Returns the number of a port, which may be a name that a container has declared."""
    if isinstance(value, int) or value.isdigit():
        return int(value)
    named = [p["containerPort"] for c in containers(template) for p in c.get("ports", []) if p.get("name") == value]
    assert len(named) == 1, f"{len(named)} container ports are named {value}"
    return named[0]


def without_drain(template):
    """Removes what lets a sidecar drain: the folder of its admin socket, its preStop, and the app's time for it."""
    proxy = sidecar(template)
    proxy["volumeMounts"] = [m for m in proxy["volumeMounts"] if m["mountPath"] != "/run/pulsegate"]
    proxy.pop("lifecycle", None)
    for container in template["spec"]["containers"]:
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": 5}}}
