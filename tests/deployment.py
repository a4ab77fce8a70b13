"""Reads docker/compose.yaml and renders docker/helm, and prints both as one JSON text for deployment.rs.

What is rendered is held to the schemas of Kubernetes. Helm's own engine comes as a wheel for some machines only: without it
`charts` is null."""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

try:
    import helm_python
except ImportError:
    helm_python = None

DOCKER = pathlib.Path(__file__).resolve().parent.parent / "docker"
KUBERNETES = "1.33"


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def render(chart, values):
    rendered = []
    for name, text in sorted(chart.render(values=values, name="tilecast").items()):
        if name.endswith(".txt"):
            rendered.append({"kind": "Notes", "text": text})
            continue
        for document in documents(text):
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
            rendered.append(document)
    return rendered


def charts(wanted):
    if helm_python is None:
        return None
    lint = helm_python.lint(str(DOCKER / "helm"), values=wanted[0])
    with helm_python.Chart.load(str(DOCKER / "helm")) as chart:
        try:
            chart.render(values={}, name="tilecast")
            refused = ""
        except helm_python.HelmError as error:
            refused = str(error)
        return {"lint": lint, "without_store": refused, "rendered": [render(chart, values) for values in wanted]}


compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
inside = {name: config["content"] for name, config in compose["configs"].items() if "content" in config}
files = {name: documents(text) for name, text in inside.items() if name != "garage"}
json.dump({"compose": compose, "files": files, "charts": charts(json.load(sys.stdin))}, sys.stdout)
