"""Breaks manifests one way after the other: the judge must find each. Arguments are those of judge.py, with one file.

Prints what was not found, and fails; the last line counts the mutations.
"""

import copy
import pathlib
import re
import sys

import yaml

from judge import Judge, Manifests, parse, sidecar

# A name, what is changed, and the words that the judge must say.
MUTATIONS = []


def mutation(words):
    def register(change):
        MUTATIONS.append((change.__name__, change, words))
        return change

    return register


def of(all, kind):
    return next(resource for resource in all if resource["kind"] == kind)


def pod(all):
    return of(all, "Deployment")["spec"]["template"]["spec"]


def its(all):
    return sidecar(pod(all))


def app(all):
    return pod(all)["containers"][0]


@mutation("'restartPolcy' was unexpected")
def a_misspelt_key(all):
    its(all)["restartPolcy"] = its(all).pop("restartPolicy")


@mutation("Couldn't find schema")
def an_unknown_kind(all):
    of(all, "Service")["kind"] = "Servise"


@mutation("'issuer' was unexpected")
def a_misspelt_key_of_a_certificate(all):
    spec = of(all, "Certificate")["spec"]
    spec["issuer"] = spec.pop("issuerRef")


@mutation("'prt' was unexpected")
def a_misspelt_key_of_a_pod_monitor(all):
    endpoint = of(all, "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    endpoint["prt"] = endpoint.pop("port")
    endpoint["port"] = "pulsegate"


@mutation("is not of type")
def a_number_as_text(all):
    pod(all)["terminationGracePeriodSeconds"] = "57"


@mutation("restartPolicy is not Always")
def an_ordinary_init_container(all):
    del its(all)["restartPolicy"]


@mutation("stands behind the sidecar")
def a_migration_behind_the_sidecar(all):
    pod(all)["initContainers"].append({"name": "late", "image": "late"})


@mutation("no drain in preStop")
def no_drain(all):
    del its(all)["lifecycle"]


@mutation("no writable /run/pulsegate")
def no_folder_for_the_socket(all):
    its(all)["volumeMounts"] = [m for m in its(all)["volumeMounts"] if m["name"] != "pulsegate-run"]


@mutation("is no volume")
def a_mount_of_nothing(all):
    pod(all)["volumes"] = [v for v in pod(all)["volumes"] if v["name"] != "pulsegate-run"]


@mutation("is mounted nowhere")
def a_volume_for_nothing(all):
    pod(all)["volumes"].append({"name": "left", "emptyDir": {}})


@mutation("two of one name among volumes")
def a_volume_twice(all):
    pod(all)["volumes"].append(pod(all)["volumes"][0])


@mutation("no ConfigMap")
def another_config_map(all):
    of(all, "ConfigMap")["metadata"]["name"] = "other"


@mutation("no Secret")
def another_secret(all):
    of(all, "Certificate")["spec"]["secretName"] = "other"


@mutation("no ServiceAccount")
def another_account(all):
    of(all, "ServiceAccount")["metadata"]["name"] = "other"


@mutation("not readable by its group alone")
def a_key_for_all(all):
    for volume in pod(all)["volumes"]:
        if volume["name"] == "pulsegate-tls":
            volume["secret"]["defaultMode"] = 0o444


@mutation("no fsGroup")
def no_group(all):
    del pod(all)["securityContext"]


@mutation("and the drain takes 107 s")
def an_app_that_ends_early(all):
    app(all)["lifecycle"]["preStop"]["sleep"]["seconds"] = 106


@mutation("sleeps for longer than the grace period")
def an_app_that_sleeps_too_long(all):
    app(all)["lifecycle"]["preStop"]["sleep"]["seconds"] = 138


@mutation("a grace period of 107 s for a drain of 107 s")
def no_time_to_end(all):
    pod(all)["terminationGracePeriodSeconds"] = 107


def replaced(all, old, new):
    """Puts `new` into proxy.toml in the place of `old`, which has to be there."""
    data = of(all, "ConfigMap")["data"]
    assert old in data["proxy.toml"], f"no {old!r} in proxy.toml"
    data["proxy.toml"] = data["proxy.toml"].replace(old, new)


@mutation("the drain takes 160 s")
def a_longer_drain(all):
    replaced(all, 'window = "1.5s"', 'window = "55s"')


@mutation("and the app listens on [3000]")
def another_port_of_the_app(all):
    replaced(all, ":3000", ":3001")


@mutation("unknown key")
def a_misspelt_key_of_the_proxy(all):
    replaced(all, "window", "windo")


@mutation("proxy.toml has no address")
def another_address(all):
    replaced(all, "9443", "9444")


@mutation("proxy.toml has no allow")
def every_page_may_connect(all):
    data = of(all, "ConfigMap")["data"]
    data["proxy.toml"] = re.sub(r"\[origins\]\nallow = .*", "", data["proxy.toml"])


@mutation("does not find tls.key")
def another_path_of_the_key(all):
    for mount in its(all)["volumeMounts"]:
        if mount["name"] == "pulsegate-tls":
            mount["mountPath"] = "/etc/tls"


@mutation("readinessProbe is")
def a_probe_of_the_wrong_port(all):
    its(all)["readinessProbe"]["httpGet"]["port"] = 8443


@mutation("which it does not declare")
def a_probe_of_the_proxy_by_the_app(all):
    app(all)["readinessProbe"]["httpGet"]["port"] = 8443


@mutation("past the proxy")
def a_service_past_the_proxy(all):
    of(all, "Service")["spec"]["ports"][0]["targetPort"] = 3000


@mutation("as a number")
def a_port_by_name(all):
    of(all, "Service")["spec"]["ports"][0]["targetPort"] = "https"


@mutation("Service demo-express-example selects no pod")
def a_service_of_nothing(all):
    of(all, "Service")["spec"]["selector"] = {"app": "other"}


@mutation("does not select its own pods")
def pods_of_nobody(all):
    of(all, "Deployment")["spec"]["template"]["metadata"]["labels"] = {"app": "other"}


@mutation("and the proxy listens on")
def a_policy_that_opens_the_app(all):
    rule = of(all, "NetworkPolicy")["spec"]["ingress"][0]
    rule["ports"].append({"protocol": "TCP", "port": 3000})


@mutation("does not count WebSockets")
def a_scaler_of_something_else(all):
    of(all, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"] = "requests"


@mutation("measures a container that is missing")
def a_scaler_of_another_container(all):
    of(all, "HorizontalPodAutoscaler")["spec"]["metrics"][1]["containerResource"]["container"] = "main"


@mutation("sets replicas")
def two_that_scale(all):
    of(all, "Deployment")["spec"]["replicas"] = 2


@mutation("no port is named metrics")
def a_monitor_of_another_port(all):
    of(all, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["port"] = "metrics"


@mutation("automountServiceAccountToken is not false")
def a_token(all):
    pod(all)["automountServiceAccountToken"] = True


@mutation("readOnlyRootFilesystem is False")
def a_writable_root(all):
    its(all)["securityContext"]["readOnlyRootFilesystem"] = False


@mutation("runAsUser is root")
def root(all):
    app(all)["securityContext"]["runAsUser"] = 0


@mutation("a kind that is not allowed")
def a_folder_of_the_node(all):
    pod(all)["volumes"].append({"name": "node", "hostPath": {"path": "/"}})


def main():
    judge = Judge(parse(sys.argv[1:]))
    (file,) = judge.file
    whole = [resource for resource in yaml.safe_load_all(pathlib.Path(file).read_text()) if resource]
    missed = 0
    for name, change, words in MUTATIONS:
        changed = copy.deepcopy(whole)
        change(changed)
        found = list(Manifests(yaml.safe_dump_all(changed), judge).problems())
        if changed == whole or not any(words in problem for problem in found):
            missed += 1
            print(f"{name}: no {words!r} in {found}")
    print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} mutations found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
