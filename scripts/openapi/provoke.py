"""Provokes each answer that docs/openapi.yaml describes, and compares it with the document."""

import json
import threading

import requests
import schemathesis
from relay import Relay, wait_for
from schemathesis.specs.openapi import checks

# Answers that no call can provoke reliably.
NOT_PROVOKED = {
    # Need a shard that does not respond: src/ingest/answer.rs tests them.
    ("postEvent", "202"),
    ("postBatch", "202"),
}

CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

# The relay waits 30 s for a body.
TIMEOUT_S = 60

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
BODY_MAX = 1024 * 1024
BATCH_BODY_MAX = 8 * BODY_MAX
TARGET_MAX = 64 * 1024
HEADERS_MAX = 100


class MissingBody:
    """A body that is announced with 10 bytes and never sent."""

    def __len__(self):
        return 10

    def __iter__(self):
        return iter(())

    def read(self, size):
        return b""


class Answers:
    """Calls relays, and remembers which answers of the document it got."""

    def __init__(self, document):
        schema = schemathesis.openapi.from_dict(document)
        operations = [result.ok() for result in schema.get_all_operations()]
        self.operations = {it.definition.raw["operationId"]: it for it in operations}
        self.seen = set()
        self.faults = []

    def call(
        self, relay, name, status, query="", tenant="acme", key="backend", method=None, **request
    ):
        """Makes a call that must be answered with the status. Returns the answer."""
        operation = self.operations[name]
        path = operation.path.format(tenant=tenant, user="ann")
        base = relay.ingest if path.startswith("/v1/") else relay.ops
        headers = request.pop("headers", {})
        if key:
            headers = headers | {"Authorization": f"Bearer {relay.keys[key]}"}
        response = requests.request(
            method or operation.method,
            f"{base}{path}?{query}" if query else base + path,
            headers=headers,
            timeout=TIMEOUT_S,
            **request,
        )
        self.seen.add((name, str(status)))
        try:
            if response.status_code != status:
                raise AssertionError(f"the status is {response.status_code}")
            case = operation.Case(path_parameters={"tenant": tenant, "user": "ann"})
            case.validate_response(response, checks=CHECKS)
        except (AssertionError, schemathesis.errors.FailureGroup) as error:
            self.faults.append(f"{name} {status}: {error}\n{response.text[:1000]}")
        return response

    def expect(self, what, condition):
        if not condition:
            self.faults.append(f"expected: {what}")

    def missing(self):
        """Returns the answers of the document that were not provoked."""
        described = {
            (name, status)
            for name, operation in self.operations.items()
            for status in operation.definition.raw["responses"]
        }
        return described - self.seen - NOT_PROVOKED


def provoke(document, binary, scratch, root):
    """Returns what is wrong, and how many answers were provoked."""
    answers = Answers(document)
    keys = {"limited": 'tenants = ["acme"]', "slow": 'burst = 1\nperiod = "1h"'}
    with Relay(binary, scratch / "open", '[schema]\nbundled = "generic"\n', keys) as relay:
        late = [
            threading.Thread(target=answers.call, args=(relay, name, 408), kwargs=missing_body())
            for name in ("postEvent", "postBatch")
        ]
        for thread in late:
            thread.start()
        post_examples(answers, relay, "generic")
        post(answers, relay)
        administrate(answers, relay)
        refuse(answers, relay)
        for thread in late:
            thread.join()
    with Relay(binary, scratch / "tracker", '[schema]\nbundled = "tracker"\n') as relay:
        post_examples(answers, relay, "tracker")
    with Relay(binary, scratch / "full", full_config(root, scratch)) as relay:
        overload(answers, relay)
    missing = [f"{name} {status}: was not provoked" for name, status in answers.missing()]
    return answers.faults + sorted(missing), len(answers.seen)


def missing_body():
    return {"headers": JSON, "data": MissingBody()}


def post_examples(answers, relay, schema):
    """Posts the document's examples of events of the schema."""
    for name in ("postEvent", "postBatch"):
        body = answers.operations[name].definition.raw["requestBody"]
        for media_type, content in body["content"].items():
            if schema not in content["examples"]:
                continue
            value = content["examples"][schema]["value"]
            # In an example of Protocol Buffers, a character is a byte.
            data = value.encode("latin-1") if isinstance(value, str) else json.dumps(value)
            answers.call(relay, name, 200, data=data, headers={"Content-Type": media_type})


def event(**members):
    return {"event": {"type": "test"}, **members}


def post(answers, relay):
    """Provokes the answers to events."""
    topic = "topic=a:1"
    first = answers.call(relay, "postEvent", 200, topic, json=event(messageId="m")).json()
    again = answers.call(relay, "postEvent", 200, topic, json=event(message_id="m")).json()
    answers.expect("a duplicate", again == first | {"matched": 0, "duplicate": True})
    other = {"event": {"type": "other"}, "messageId": "m"}
    answers.call(relay, "postEvent", 409, topic, json=other)
    for last in ("a:1@0", f"a:1@{first['position']['epoch']}:0"):
        answers.call(relay, "postEvent", 409, f"{topic}&if_last={last}", json=event())
    unknown = "b:1@" + "f" * 32 + ":7"
    answers.call(relay, "postEvent", 409, f"{topic}&if_last={unknown}", json=event())
    answers.call(relay, "postEvent", 409, f"{topic}&if_last={unknown}", "new", json=event())
    answers.call(relay, "postBatch", 200, topic, json={"messages": [event(), event()]})
    answers.call(relay, "postBatch", 409, topic, json={"messages": [event(), other]})
    answers.call(relay, "postBatch", 400, json={"messages": [event(), event(topics=["x"])]})
    answers.call(relay, "postBatch", 400, json={"messages": []})
    for name, limit in (("postEvent", BODY_MAX), ("postBatch", BATCH_BODY_MAX)):
        answers.call(relay, name, 413, data=bytes(limit + 1), headers=PROTOBUF)
        answers.call(relay, name, 415, data=b"{}", headers={"Content-Type": "text/plain"})
    values = event(topics=["a:1"]) | {"event": {"data": [0] * 100_001}}
    answers.call(relay, "postEvent", 413, json=values)
    answers.call(relay, "postBatch", 413, json={"messages": [values]})
    answers.call(relay, "postEvent", 200, topic, key="slow", json=event())
    answers.call(relay, "postEvent", 429, topic, key="slow", json=event())
    answers.call(relay, "postBatch", 429, topic, key="slow", json={"messages": [event()]})


def administrate(answers, relay):
    """Provokes the answers about a user who is present."""
    answers.call(relay, "getTenant", 404, tenant="nobody")
    answers.call(relay, "headTenant", 404, tenant="nobody")
    client = relay.connect("acme", "ann")
    client.send({"subscribe": {"topics": ["p:1"]}})
    client.send({"messageId": "here", "presence": {"topics": ["p:1"]}})

    def list_users():
        return answers.call(relay, "listPresence", 200, "topic=p:1&limit=1").json()["topics"][0]

    users = wait_for("a user to be present", lambda: list_users()["users"])
    answers.expect("ann", [(it["user"], it["messages"]) for it in users] == [("ann", ["here"])])
    answers.call(relay, "headPresence", 200, "topic=p:1")
    listed = answers.call(relay, "listConnections", 200, "user=ann&topic=p:1").json()
    summary = [(it["user"], it["topics"], it["encoding"]) for it in listed["connections"]]
    answers.expect("a listed connection", summary == [("ann", 1, "json")])
    answers.call(relay, "headConnections", 200)
    tenant = answers.call(relay, "getTenant", 200).json()
    answers.expect("a connection", (tenant["connections"], tenant["topics"]) == (1, 1))
    answers.call(relay, "headTenant", 200)
    revoked = answers.call(relay, "endSubscriptions", 200, "topic=p:*").json()
    answers.expect("an ended subscription", revoked == {"revoked": 1})
    closed = answers.call(relay, "disconnectUser", 200, "reconnect=true").json()
    answers.expect("a closed connection", closed == {"closed": 1})
    client.close()


def refuse(answers, relay):
    """Provokes the refusals that many calls have in common."""
    many_headers = {f"x-{n}": "" for n in range(HEADERS_MAX)}
    for name, operation in answers.operations.items():
        responses = operation.definition.raw["responses"]
        is_backend = operation.path.startswith("/v1/")
        answers.call(relay, name, 431, headers=many_headers)
        if "405" in responses:
            allowed = answers.call(relay, name, 405, method="PATCH").headers["Allow"].split(", ")
            answers.expect(f"{name} to be allowed", operation.method.upper() in allowed)
        if is_backend:
            answers.call(relay, name, 400, "unknown=1", headers=JSON)
            answers.call(relay, name, 401, key=None)
            answers.call(relay, name, 403, tenant="globex", key="limited")
        else:
            answers.call(relay, name, 200)
            answers.call(relay, name, 400, headers={"Host": "localhost:x"})
            answers.call(relay, name, 403, headers={"Origin": "https://evil.example"})
            answers.call(relay, name, 414, "x" * TARGET_MAX)


def full_config(root, scratch):
    """A relay with room for one tenant, and with a schema without batches."""
    envelope = (root / "proto/generic/v1/envelope.proto").read_text(encoding="utf-8")
    whole = "    BatchUpdate batch = 17;\n"
    if whole not in envelope:
        raise SystemExit("openapi: proto/generic/v1/envelope.proto has no line for batches")
    (scratch / "plain.proto").write_text(envelope.replace(whole, ""), encoding="utf-8")
    files = json.dumps([str(scratch / "plain.proto")])
    schema = f'[schema]\nfiles = {files}\nenvelope = "generic.v1.Envelope"\n'
    return f"{schema}[limits]\ntenants = 1\n"


def overload(answers, relay):
    """Provokes the answers of a relay that is full or shutting down."""
    client = relay.connect("acme", "ann")
    answers.call(relay, "postBatch", 404, json={"messages": [event()]})
    full = answers.call(relay, "postEvent", 503, "topic=a:1", "globex", json=event()).json()
    answers.expect("a limit", full["code"] == "RATE_LIMIT_EXCEEDED")
    relay.terminate()
    ready = f"{relay.ops}/readyz"
    wait_for("the drain", lambda: requests.get(ready, timeout=TIMEOUT_S).status_code == 503)
    for name, operation in answers.operations.items():
        if "503" in operation.definition.raw["responses"]:
            body = answers.call(relay, name, 503).content
            is_head = operation.method == "head"
            answers.expect("a fault", is_head or json.loads(body)["code"] == "INTERNAL_ERROR")
    client.close()
    answers.expect("an orderly end", relay.wait() == 0)
