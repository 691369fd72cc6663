"""Schemas of Kubernetes resources, all strict: an unknown key is an error."""

import functools
import json
import os
import pathlib
import tempfile

import jsonschema
import kubernetes_validate

# The first version with native sidecars and a preStop sleep, and the newest one known.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]

# Made once for each environment: loading the classes takes seconds.
CACHE = pathlib.Path(__file__).resolve().parents[2] / "target/deploy-venv/custom-resources.json"


def problems(resource):
    """Yields why the resource is not valid."""
    named = f'{resource["kind"]} {resource["metadata"]["name"]}'
    own = custom_resources().get(f'{resource["apiVersion"]} {resource["kind"]}')
    if own:
        for error in jsonschema.Draft202012Validator(own).iter_errors(resource):
            yield f"{named}: {error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(resource, version, strict=True)
        # A kind without a schema is one too.
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            yield f"{named}, Kubernetes {version}: {error.message}"


@functools.cache
def custom_resources():
    if not CACHE.exists():
        made = json.dumps(make())
        with tempfile.NamedTemporaryFile("w", dir=CACHE.parent, delete=False) as file:
            file.write(made)
        os.replace(file.name, CACHE)
    return json.loads(CACHE.read_text())


def make():
    from cloudcoil.models.cert_manager.v1 import Certificate
    from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

    kinds = {"cert-manager.io/v1": [Certificate], "monitoring.coreos.com/v1": [PodMonitor, PrometheusRule]}
    return {f"{api} {kind.__name__}": strict(kind.model_json_schema()) for api, all in kinds.items() for kind in all}


def strict(schema):
    """Forbids unknown keys in every object that names its keys, and null where something else is possible."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items()}
    wanted = [part for part in made.get("anyOf", []) if part != {"type": "null"}]
    if len(wanted) == 1:
        return wanted[0]
    if isinstance(made.get("properties"), dict) and "additionalProperties" not in made:
        made["additionalProperties"] = False
    return made
