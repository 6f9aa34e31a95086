"""Checks the files in monitoring/ without a relay: with promtool, and against the
documentation and the metrics of docs/metrics.md."""

import json
import re
from pathlib import Path

from processes import check, run

ROOT = Path(__file__).resolve().parent.parent.parent
MONITORING = ROOT / "monitoring"
ALERTS, TESTS, DASHBOARD = (
    MONITORING / name for name in ("alerts.yml", "alerts_test.yml", "grafana.json")
)

# promtool has checked that the files are valid, so looking for lines is enough.
ALERT = re.compile(r"^ +- alert: (\w+)$", re.M)
RUNBOOK = re.compile(r"^ +runbook: docs/operations\.md#(\w+)$", re.M)


def alert_names() -> list[str]:
    return ALERT.findall(ALERTS.read_text(encoding="utf-8"))


def check_alerts() -> str:
    """Checks the alerts, and that each of them has a test in which it fires and one in which
    it does not."""
    run("promtool", "check", "rules", ALERTS)
    run("promtool", "test", "rules", TESTS)
    names = alert_names()
    tests = re.split(r"^  - name: ", TESTS.read_text(encoding="utf-8"), flags=re.M)[1:]
    tested = [test.splitlines()[0] for test in tests]
    check(
        sorted(tested) == sorted(names),
        f"alerts without a test, or the reverse: {set(names) ^ set(tested)}",
    )
    for name, test in zip(tested, tests, strict=True):
        asked = f'ALERTS{{alertname="{name}", alertstate="firing"}}'
        moments = test.split("- expr:")[1:]
        check(all(asked in moment for moment in moments), f"the test {name} asks for another alert")
        fires = ["exp_samples:" in moment for moment in moments]
        check(
            set(fires) == {False, True},
            f"the test {name} needs a moment with and one without the alert",
        )
    return f"{len(names)} alerts, each tested"


def check_documents() -> str:
    """Checks that every alert has a section in docs/operations.md, and that every metric in a
    query is in docs/metrics.md."""
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    names = alert_names()
    sections = re.findall(r"^### (Sidewire\w+)$", page, re.M)
    check(
        sections == names,
        f"docs/operations.md has other alerts, or another order: {set(names) ^ set(sections)}",
    )
    runbooks = RUNBOOK.findall(ALERTS.read_text(encoding="utf-8"))
    check(runbooks == [name.lower() for name in names], "a runbook is not the section of its alert")
    documented = set(
        re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(encoding="utf-8"), re.M)
    )
    expressions = [expression for _, expression in dashboard_queries()]
    used = set()
    for text in [*expressions, ALERTS.read_text(encoding="utf-8")]:
        text = re.sub(r"^ *(#|action:|summary:|runbook:).*$", "", text, flags=re.M)
        used |= set(re.findall(r"\b(?:sidewire|process)_\w+", text))
    used = {
        re.sub(r"_(bucket|sum|count)$", "", name) if name not in documented else name
        for name in used
    }
    check(used <= documented, f"not in docs/metrics.md: {used - documented}")
    return f"{len(sections)} sections; {len(used)} metrics are used"


def dashboard() -> dict:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def dashboard_queries() -> list[tuple[str, str]]:
    """Returns the queries of the dashboard, each with the title of its panel."""
    found = [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    ]
    annotations = dashboard()["annotations"]["list"]
    return found + [(f"annotation {it['name']}", it["expr"]) for it in annotations]
