"""Asks Prometheus every query of the alerts and of the dashboard."""

import re
import time

import files
import traffic
from processes import check
from prometheus import Server

# Stands for the windows of minutes that alerts look at, since the relay runs for less than one.
WINDOW = "10s"

# Queries that return nothing though all is well, with the reason. None at present: the load
# moves whatever a query divides by, and the relay has a certificate and fetched keys.
MAY_BE_EMPTY: dict[str, str] = {}

# The panels in the picture, in its order.
PICTURE = [
    "Connections",
    "Events in",
    "Deliveries",
    "Latency in the relay",
    "Reconnects",
    "Calls of backends",
    "Not authenticated",
    "Memory by use",
]


def always_data(expression: str) -> str:
    """Returns an alert's expression with short windows, and with 0 or 1 as the result of each
    comparison, so that it returns data while the alert does not fire."""
    expression = re.sub(r"\b\d+m\b", WINDOW, expression)
    # Comparisons have spaces around them, label matchers do not.
    return re.sub(r" (==|!=|<=|>=|<|>) ", r" \1 bool ", expression)


def check_rules(server: Server) -> str:
    """Checks that Prometheus evaluates the alerts themselves without errors, and that none
    fires: what the load provokes does not last long enough."""
    rules = alert_rules(server)
    loaded = {rule["name"] for rule in rules}
    check(loaded == set(files.alert_names()), f"Prometheus has other alerts: {loaded}")
    for rule in rules:
        check(rule["health"] == "ok", f"{rule['name']}: {rule.get('lastError') or rule['health']}")
    firing = [rule["name"] for rule in rules if rule["state"] == "firing"]
    check(not firing, f"alerts fire: {firing}")
    return f"{len(rules)} are evaluated, none fires"


def alert_rules(server: Server) -> list[dict]:
    groups = server.get("rules", type="alert")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def check_alerts(server: Server) -> str:
    rules = alert_rules(server)
    for rule in rules:
        check_data(server, rule["name"], always_data(rule["query"]))
    return f"{len(rules)} return data"


def check_dashboard(server: Server) -> str:
    """Checks every query of the dashboard over the time of the load, and its variables."""
    asked = files.dashboard_queries()
    for title, expression in asked:
        if title.startswith("annotation"):
            expression = always_data(expression)
        check_data(server, title, resolved(expression))
    for name in ("job", "instance"):
        values = server.get(f"label/{name}/values", **{"match[]": "sidewire_build_info"})
        check(values, f"the variable {name} has no values")
    return f"{len(asked)} queries of {len({title for title, _ in asked})} panels return data"


def resolved(expression: str) -> str:
    """Returns a query with values in place of Grafana's variables."""
    for variable, value in (
        ("$__rate_interval", WINDOW),
        ("$job", "sidewire"),
        ("$instance", ".+"),
    ):
        expression = expression.replace(variable, value)
    check("$" not in expression, f"an unknown variable in {expression}")
    return expression


def check_data(server: Server, name: str, expression: str) -> None:
    found = server.range(expression, traffic.began_at(), time.time())
    check(found or name in MAY_BE_EMPTY, f"{name}: no data for {expression}")


def legend(template: str, labels: dict[str, str]) -> str:
    """Returns the name of a series, as Grafana makes it of its labels."""
    return re.sub(r"\{\{(\w+)\}\}", lambda label: labels.get(label[1], ""), template)


def picture_series(server: Server) -> list[tuple[dict, list[dict]]]:
    """Returns the panels of the picture, each with its series. Each series has a `name`."""
    panels = {panel["title"]: panel for panel in files.dashboard()["panels"]}
    start, end = traffic.began_at(), time.time()
    drawn = []
    for title in PICTURE:
        panel, series = panels[title], []
        for target in panel["targets"]:
            for one in server.range(resolved(target["expr"]), start, end):
                name = legend(target["legendFormat"], one["metric"])
                values = [(moment - start, value) for moment, value in one["values"]]
                series.append({"name": name, "values": values})
        drawn.append((panel, series))
    return drawn
