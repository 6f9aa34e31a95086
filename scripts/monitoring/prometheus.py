"""Debian's Prometheus: installs it, runs it, and asks it."""

import json
import math
import os
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import files
from processes import Processes, check, free_port, run, wait_until

CONFIG = """\
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: sidewire
    static_configs: [{{ targets: ["127.0.0.1:{ops}"] }}]
"""


def install() -> str:
    """Installs Prometheus if it is missing. Returns its version."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run("apt-get", "update", "-qq", env=environment)
        options = ["-qq", "--yes", "--no-install-recommends"]
        run("apt-get", "install", *options, "prometheus", env=environment)
    return version()


def version() -> str:
    return run("prometheus", "--version").split()[2]


def check_scrape(text: str) -> str:
    """Checks a scrape with promtool, which also judges the names."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    found = done.stdout + done.stderr
    check(done.returncode == 0 and not found, f"promtool check metrics:\n{found}")
    series = sum(not line.startswith("#") for line in text.splitlines() if line)
    return f"{series} series, {len(text):,} bytes"


class Server:
    """A Prometheus that scrapes the relay and evaluates the alerts every second."""

    def __init__(self, scratch: Path, ops_port: int, processes: Processes):
        config = scratch / "prometheus.yml"
        config.write_text(CONFIG.format(rules=files.ALERTS, ops=ops_port), encoding="utf-8")
        run("promtool", "check", "config", config)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        processes.start(
            "prometheus",
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={scratch / 'data'}",
            "--storage.tsdb.retention.time=1h",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        )
        wait_until("Prometheus", self._is_ready)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def get(self, path: str, **parameters: object):
        """Returns the data of an answer of the API. Fails if the answer is an error."""
        body = urllib.parse.urlencode(parameters, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{body}", timeout=20) as answer:
                decoded = json.load(answer)
        except urllib.error.HTTPError as error:
            check(False, f"{parameters}: {error.read().decode()}")
        check(decoded["status"] == "success", f"{parameters}: {decoded}")
        check(not decoded.get("warnings"), f"{parameters}: {decoded.get('warnings')}")
        return decoded["data"]

    def values(self, expression: str) -> list[float]:
        """Returns the values of an expression now."""
        result = self.get("query", query=expression)["result"]
        return [float(sample["value"][1]) for sample in result]

    def range(self, expression: str, start: float, end: float, step: float = 1) -> list[dict]:
        """Returns the series of an expression, without values that are not numbers: each has
        its labels in `metric`, and pairs of time and value in `values`."""
        found = self.get("query_range", query=expression, start=start, end=end, step=step)
        series = []
        for one in found["result"]:
            values = [(time, float(value)) for time, value in one["values"]]
            values = [(time, value) for time, value in values if math.isfinite(value)]
            if values:
                series.append({"metric": one["metric"], "values": values})
        return series

    def wait_for(self, expression: str) -> None:
        """Waits until an expression returns something."""
        wait_until(expression, lambda: self.values(expression))
