"""Checks docs/openapi.yaml, and a relay against it; for scripts/check-openapi.

  check.py SIDEWIRE     the program to check
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema_rs
import openapi_spec_validator
import requests
import yaml
from provoke import provoke
from relay import Relay

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DOCUMENT = ROOT / "docs/openapi.yaml"

CASES_MIN = 1_000
# Time limit for all cases of an operation. They take 10 to 30 s.
OPERATION_S = 300
# Tenants that have an event: one of the document's example, and one that is generated often.
TENANTS = ["acme", "0"]


class Step:
    """Prints how long a block took, and what it found."""

    def __init__(self, name):
        self.name = name
        self.found = ""

    def __enter__(self):
        self.began = time.monotonic()
        return self

    def __exit__(self, kind, *failure):
        if kind is None:
            seconds = time.monotonic() - self.began
            print(f"openapi: {self.name:<60} {seconds:6.1f} s  {self.found}", flush=True)


def fail(what):
    sys.exit(f"openapi: {what}")


def check_document(document):
    """Checks that the document is OpenAPI, that its examples match its schemas, and that its
    links have targets. Returns how many examples there are."""
    openapi_spec_validator.validate(document)
    for page, anchor in re.findall(r"\]\((\w+\.md)(?:#([\w-]+))?\)", json.dumps(document)):
        text = (DOCUMENT.parent / page).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        if anchor and anchor not in map(anchor_of, headings):
            fail(f"docs/{page} has no heading for the link to #{anchor}")
    examples = 0
    for where, part in parts(document, "docs/openapi.yaml"):
        values = [it["value"] for it in part.get("examples", {}).values()]
        values += [part["example"]] if "example" in part else []
        validator = jsonschema_rs.Draft202012Validator(
            {"components": document["components"], **part["schema"]}
        )
        for value in values:
            examples += 1
            if error := next(validator.iter_errors(value), None):
                fail(f"{where}: an example does not match its schema: {error}")
    if not examples:
        fail("the document has no examples")
    return examples


def anchor_of(heading):
    """Returns the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def parts(node, where):
    """Yields each part of the document that has a schema, and so may have examples of it."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from parts(item, f"{where}/{index}")
    elif isinstance(node, dict):
        if "schema" in node:
            yield where, node
        for name, item in node.items():
            yield from parts(item, f"{where}/{name}")


def narrowed(document):
    """Returns the document for a relay with a key and with the bundled schema `generic`."""
    document = json.loads(json.dumps(document))
    document["security"] = [{"ingestKey": []}]
    envelope = document["components"]["schemas"]["Envelope"]
    # The payloads. Without them hardly any case would get past the parser.
    for name in ("event", "message", "presence"):
        envelope["properties"][name] = {
            "type": "object",
            "properties": {"type": {"type": "string"}, "data": {}, "userId": {"type": "string"}},
        }
    for path, item in document["paths"].items():
        for media in item.get("post", {}).get("requestBody", {}).get("content", {}).values():
            # The provoked answers include those to the examples. Schemathesis sends no text as
            # Protocol Buffers.
            del media["examples"]
        if not path.startswith("/v1/"):
            # These calls have no parameters, so they would be a single case each.
            item["parameters"] = [{"name": "ignored", "in": "query", "schema": {"type": "string"}}]
    return document


def operations(document):
    """Returns the operations as Schemathesis names them, those that take long first."""
    names = [
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if isinstance(operation, dict) and "operationId" in operation
    ]
    return sorted(names, key=lambda name: (not name.startswith("POST"), "presence" not in name))


def fuzz(binary, scratch, name):
    """Runs Schemathesis for an operation, on a relay of its own, so that other calls have no
    influence. Returns how many cases there were, by status, and what is wrong."""
    with Relay(binary, scratch / "relay", '[schema]\nbundled = "generic"\n') as relay:
        headers = {"Authorization": f"Bearer {relay.keys['backend']}"}
        for tenant in TENANTS:
            url = f"{relay.ingest}/v1/tenants/{tenant}/events?topic=a:1"
            requests.post(url, json={"event": {}}, headers=headers, timeout=10).raise_for_status()
        command = [
            Path(sys.executable).parent / "schemathesis",
            "--config-file",
            HERE / "schemathesis.toml",
            "run",
            "--no-color",
            "--workers",
            "1",
            "--url",
            relay.ingest if "/v1/" in name else relay.ops,
            "--include-name",
            name,
            scratch.parent / "openapi.json",
        ]
        env = os.environ | {
            "PYTHONPATH": str(HERE),
            # The order in sets decides which calls are made.
            "PYTHONHASHSEED": "0",
            "SIDEWIRE_INGEST_KEY": relay.keys["backend"],
            "SIDEWIRE_CASES": str(scratch / "cases.json"),
        }
        ran = subprocess.run(
            command,
            cwd=scratch,
            env=env,
            timeout=OPERATION_S,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        harm = find_harm(relay)
    if ran.returncode or harm:
        return Counter(), "\n".join([*harm, ran.stdout])
    statuses = Counter(json.loads((scratch / "cases.json").read_text(encoding="ascii")))
    fault = f"only {statuses.total()} of {CASES_MIN} cases" if statuses.total() < CASES_MIN else ""
    return statuses, fault


def find_harm(relay):
    """Ends the relay, and returns what is wrong with it."""
    harm = []
    for path in ("/healthz", "/readyz"):
        status = requests.get(relay.ops + path, timeout=10).status_code
        if status != 200:
            harm.append(f"{path} answers {status} after all cases")
    metrics = requests.get(f"{relay.ops}/metrics", timeout=10).text
    if "\nsidewire_panics_total 0\n" not in metrics:
        harm.append("sidewire_panics_total is not 0 after all cases")
    relay.terminate()
    if status := relay.wait():
        harm.append(f"the relay ended with {status}")
    return harm + [line["message"] for line in relay.log() if line["level"] == "ERROR"]


def fuzz_all(binary, scratch, document):
    """Fuzzes all operations, and returns what is wrong."""

    def run(item):
        index, name = item
        directory = scratch / f"fuzz-{index}"
        directory.mkdir()
        with Step(name) as step:
            statuses, fault = fuzz(binary, directory, name)
            counts = ", ".join(f"{statuses[status]} times {status}" for status in sorted(statuses))
            step.found = "failed" if fault else f"{statuses.total()} cases: {counts}"
        return fault and f"{name}: {fault}"

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(filter(None, pool.map(run, enumerate(operations(document)))))


def main(binary):
    with Step("document") as step:
        document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
        step.found = f"{check_document(document)} examples"
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as beside:
        scratch = Path(scratch)
        provoking = beside.submit(provoke, document, binary, scratch, ROOT)
        (scratch / "openapi.json").write_text(json.dumps(narrowed(document)), encoding="utf-8")
        faults = fuzz_all(binary, scratch, document)
        with Step("documented answers") as step:
            wrong, provoked = provoking.result()
            step.found = f"{provoked} provoked"
    if faults or wrong:
        fail("\n".join(["the relay and the document differ:", *faults, *wrong]))


if __name__ == "__main__":
    main(*sys.argv[1:])
