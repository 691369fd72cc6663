"""Validates instances by a JSON Schema: {"schema": …, "instances": […]} in, a list of errors for each instance out."""

import json
import sys

from jsonschema import Draft202012Validator

request = json.load(sys.stdin)
Draft202012Validator.check_schema(request["schema"])
validator = Draft202012Validator(request["schema"])
errors = [[f"{e.json_path}: {e.message}" for e in validator.iter_errors(one)] for one in request["instances"]]
json.dump(errors, sys.stdout)
