"""A day of an operator, really run: writes the page docs/operations/day.md, with every command and what it printed.

Usage: python scripts/operators_day.py PAGE [--maps FOLDER] [--pictures FOLDER]

Starts a Prefect server with its pages, workers and a receiver of alerts in a temporary folder and on free ports, which the
page calls /srv/day and by their usual numbers. --maps is a folder with sofia-centre.osm and granada.osm (default: osm in that
of the environment variable WAVECITY_SHARED). Pictures of Prefect's pages, next to the page by default, need Debian's Chromium
and playwright; without them there are none. Takes some minutes on 2 cores. Ends everything that it started.
"""

import argparse
import importlib.metadata
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

from wavecity.flows.bench.prefect_server import free_port

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
# What the page calls them.
USUAL = {"api": 4200, "metrics": 9464, "alerts": 8000}
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")

SMALL = {
    "users": {"minimum": 24, "maximum": 30},
    "solver": {"rays": 100_000, "max_depth": 2},
    "store": {"unit": 1},
}
BLOCK = """python - <<'END'
from prefect.blocks.notifications import CustomWebhookNotificationBlock
message = {"subject": "{{subject}}", "body": "{{body}}"}
CustomWebhookNotificationBlock(name="operations", url="http://127.0.0.1:8000/", json_data=message).save("operations")
END"""
ROWS = """python -c 'import json, sys; print(*json.loads(json.load(sys.stdin)["data"]), sep="\\n")'"""


class Day:
    """The page, and the machine on which the commands run.

    Parameters
    ----------
    folder : Path
        Where the operator works.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {name: free_port() for name in USUAL}
        self.text: list[str] = []
        self.alerts = folder / "alerts.jsonl"
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "118",
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_COLORS": "false",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder / 'prefect.db'}",
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder / "ui"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.ports['api']}/api",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "WAVECITY_STORE": str(folder / "stores"),
        }

    def say(self, text: str) -> None:
        """Add a paragraph or a heading."""
        self.text.append(text)

    def run(self, command: str, code: int | None = 0) -> str:
        """Run a command of bash, add it with its output, and return the output; `code` is that which it must end with."""
        ended = subprocess.run(
            ["bash", "-c", self.here(command)], cwd=self.folder, env=self.environment, text=True, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        output = "\n".join(line.rstrip() for line in ended.stdout.strip("\n").splitlines())
        shown = f"$ {command}\n{output}".rstrip()
        if self.text and self.text[-1].endswith("```"):
            self.text[-1] = f"{self.text[-1].removesuffix('```')}\n{self.usual(shown)}\n```"
        else:
            self.say(f"```\n{self.usual(shown)}\n```")
        print(f"$ {command}\n{output}\n", file=sys.stderr, flush=True)
        if code is not None and ended.returncode != code:
            msg = f"{command}: exit code {ended.returncode}"
            raise RuntimeError(msg)
        return ended.stdout

    def here(self, command: str) -> str:
        """A command of the page as it runs here."""
        command = command.replace("/srv/day", str(self.folder)).replace("/srv/wavecity", str(ROOT))
        for name, usual in USUAL.items():
            command = re.sub(rf"\b{usual}\b", str(self.ports[name]), command)
        return command

    def usual(self, text: str) -> str:
        """What ran here as the page has it."""
        text = text.replace(str(self.folder), "/srv/day").replace(str(ROOT), "/srv/wavecity")
        for name, port in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(USUAL[name]), text)
        return re.sub(rf"\b{re.escape(os.uname().nodename)}\b", "builder", text)

    def ask(self, path: str, body: Any = None) -> Any:
        """Answer of the server."""
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.environment['PREFECT_API_URL']}/{path}"
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def build(self, deployment: str, name: str, file: str, more: str = "") -> str:
        """Start a run of a deployment, and return its id."""
        command = f"prefect deployment run build-dataset/{deployment} --flow-run-name {name} --params - < {file}"
        said = self.run(f"{command.replace(' --params', f' {more} --params') if more else command} | grep UUID")
        return re.findall(r"UUID: (\S+)", said)[0]

    def state(self, run: str) -> str:
        """State of a run."""
        return str(self.ask(f"flow_runs/{run}")["state_type"])

    def end(self, run: str, expected: str) -> None:
        """Wait for the end of a run."""
        until(lambda: self.state(run) in ENDED, f"the end of {run}")
        if self.state(run) != expected:
            msg = f"run {run} is {self.state(run)}, not {expected}:\n{(self.folder / 'worker.log').read_text()[-5000:]}"
            raise RuntimeError(msg)

    def alerted(self, subject: str) -> None:
        """Wait for an alert."""
        until(lambda: self.alerts.is_file() and subject in self.alerts.read_text(), f"the alert {subject!r}")

    def write(self, file: str, content: dict[str, Any]) -> None:
        """Write the parameters of a run."""
        (self.folder / file).write_text(self.here(json.dumps(content)) + "\n", encoding="utf-8")

    def receipts(self, store: str) -> int:
        """Finished units of a store."""
        with suppress(FileNotFoundError):  # listed while it was published
            return len(list((self.folder / "stores" / store).rglob("receipts/unit-*.json")))
        return 0


def until(what: Callable[[], Any], name: str, seconds: float = 300.0) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            msg = f"waited {seconds:g} s for {name}"
            raise RuntimeError(msg)
        time.sleep(0.3)


@contextmanager
def receiver(day: Day) -> Iterator[None]:
    """What is alerted: appends every message to the file of alerts."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            with day.alerts.open("a", encoding="utf-8") as file:
                file.write(body + "\n")
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", day.ports["alerts"]), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@contextmanager
def everything_ends(folder: Path) -> Iterator[None]:
    """End the processes whose ids stand in `*.pid`, and what they started."""
    try:
        yield
    finally:
        family: list[psutil.Process] = []
        for file in folder.glob("*.pid"):
            with suppress(psutil.NoSuchProcess):
                one = psutil.Process(int(file.read_text()))
                family += [*one.children(recursive=True), one]
        for signal_ in (signal.SIGTERM, signal.SIGKILL):
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signal_)
            _, family = psutil.wait_procs(family, timeout=20)


def morning(day: Day) -> None:
    """Server, pools, deployments, alerts, a worker."""
    day.say("## Morning: server, deployments, alerts, a worker")
    day.run("PREFECT_SERVER_API_PORT=4200 prefect server start > server.log 2>&1 & echo $! > server.pid")

    def answers() -> bool:
        with suppress(OSError):
            return bool(day.ask("health"))
        return False

    until(answers, "the server")
    for pool in ("cpu-pool", "gpu-pool"):
        day.run(f"prefect work-pool create {pool} --type process | grep Created")
    day.run("(cd /srv/wavecity && prefect --no-prompt deploy --all) | grep -o \"Deployment '.*' successfully created\"")
    day.say(
        "Alerts go to a webhook here, a receiver that appends what it gets to `alerts.jsonl`; in its place would be Slack, "
        "e-mail or whatever else Prefect has a block for."
    )
    day.run(BLOCK)
    day.run("python -m wavecity.flows.alerts custom-webhook/operations")
    worker(day, "first")


def worker(day: Day, name: str) -> None:
    """Start a worker of the cpu pool."""
    command = f"prefect worker start --pool cpu-pool --name {name} --limit 2 >> worker.log 2>&1 & echo $! > worker.pid"
    day.run(f"WAVECITY_METRICS=127.0.0.1:9464 env --default-signal=INT {command}")


def two_builds(day: Day) -> None:
    """Two builds at once, and the metrics of one of them."""
    day.say("## Two builds at once")
    cities = [
        {"name": "Sofia", "country": "BG", "scenes": 2, "source": "/srv/day/maps/sofia-centre.osm"},
        {"name": "Granada", "country": "ES", "scenes": 2, "source": "/srv/day/maps/granada.osm"},
    ]
    area = {"cities": cities, "scenes": 4, "max_coverage": 0.9, "split": {"by": "city", "validation": 0, "test": 0}}
    day.write(
        "helsinki.json",
        {"recipe": {"name": "helsinki", "base": "quickstart", "area": {"scenes": 6}, **SMALL}, "workers": 1},
    )
    day.write("towns.json", {"recipe": {"name": "towns", "base": "quickstart", "area": area, **SMALL}, "workers": 1})
    day.run("cat helsinki.json towns.json")
    runs = [day.build("quickstart", "helsinki-1", "helsinki.json"), day.build("localization", "towns-1", "towns.json")]
    metrics = f"http://127.0.0.1:{day.ports['metrics']}/metrics"

    def half_done() -> bool:
        with suppress(OSError):
            text = urllib.request.urlopen(metrics, timeout=10).read().decode()
            done = [float(value) for value in re.findall(r'^wavecity_units{.*state="done"} (\S+)$', text, re.MULTILINE)]
            return bool(done) and done[0] > 0
        return all(day.state(run) in ENDED for run in runs)

    until(half_done, "metrics")
    day.say("While they run, a look at the metrics, as Prometheus takes them:")
    day.run("curl -s http://127.0.0.1:9464/metrics | grep '^wavecity_' | grep -v _created")
    for run in runs:
        day.end(run, "COMPLETED")
    day.say(
        "Both were runs of one worker, so they share its variable `WAVECITY_METRICS`: the one that came second goes on "
        "without. A worker per run, each with a port of its own, gives both."
    )
    day.run("grep -o 'no metrics: .*' worker.log")
    day.say("What the page of a run says, here of Helsinki:")
    logs(day, runs[0])
    day.alerted("A version was published")
    day.alerted("A run is Late")
    day.say(
        "Helsinki's version was announced (that of `localization`, a downstream dataset, is not), which started a training. "
        "No worker of the pool `gpu-pool` was there to take it, so two alerts came:"
    )
    day.run("cat alerts.jsonl")
    day.run("prefect flow-run ls")


def logs(day: Day, run: str, only: str = "") -> None:
    """What the log of a run says, without times and tasks."""

    def there() -> bool:
        said = day.ask("logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_DESC"})
        return any(one["task_run_id"] is None and one["message"].startswith("Finished in state") for one in said)

    until(there, "the end of the log")
    grep = f"grep '{only}'" if only else "grep -v '^Finished in state'"
    day.run(f"prefect flow-run logs {run} | sed \"s/.*Flow run '[^']*' - //\" | {grep}")


def gate(day: Day) -> None:
    """A version that a gate stops, and its override by name."""
    day.say("## A gate stops a version")
    recipe = {"name": "strict", "base": "quickstart", "area": {"scenes": 3}, "gates": {"outage": 0.05}, **SMALL}
    day.write("strict.json", {"recipe": recipe, "workers": 1, "announce": False})
    day.run("cat strict.json")
    stopped = day.build("quickstart", "strict-1", "strict.json")
    day.end(stopped, "FAILED")
    logs(day, stopped, "not published")
    day.alerted("A quality gate stopped a version")
    day.alerted("A run is Failed")
    day.run("tail -n 2 alerts.jsonl")
    day.run(f"curl -s $PREFECT_API_URL/artifacts/strict-gates/latest | {ROWS}")
    day.say("The outage is known and accepted this once, so the gate is passed by its name. Nothing is traced again:")
    passed = day.build("quickstart", "strict-2", "strict.json", "--param pass_gates='[\"outage\"]'")
    day.end(passed, "COMPLETED")
    logs(day, passed)


def killed(day: Day) -> None:
    """A worker is killed, and the next one goes on."""
    day.say("## A worker is killed")
    recipe: dict[str, Any] = {"name": "long", "base": "quickstart", "area": {"scenes": 16}, **SMALL}
    recipe["solver"] = {"rays": 1_000_000, "max_depth": 3}
    day.write("long.json", {"recipe": recipe, "workers": 1, "announce": False})
    first = day.build("quickstart", "long-1", "long.json")
    until(lambda: day.receipts("long") >= 3, "three units")
    day.run("kill -9 $(cat worker.pid); ls stores/long/.staging/*/receipts")
    day.end(first, "CRASHED")
    done = day.receipts("long")
    day.alerted("A run is Crashed")
    day.run("tail -n 1 alerts.jsonl")
    day.say("The run has ended with its worker and has freed the store. Another worker, and the same command again:")
    worker(day, "second")
    second = day.build("quickstart", "long-2", "long.json")
    day.end(second, "COMPLETED")
    logs(day, second, "to build\\|is published")
    day.say(f"The {done} units that were there were not built again.")
    day.run("prefect flow-run ls --flow-name build-dataset --limit 3")


def one_city(day: Day) -> None:
    """The map of a city has changed."""
    day.say("## One city is built anew")
    day.say("Mappers have been to Sofia, and what had five storeys has six. Granada's map may be gone meanwhile:")
    day.run('sed -i \'s/"building:levels" v="5"/"building:levels" v="6"/\' maps/sofia-centre.osm; rm maps/granada.osm')
    run = day.build("localization", "towns-2", "towns.json", "--param cities='[\"Sofia\"]'")
    day.end(run, "COMPLETED")
    logs(day, run, "to build\\|is published")
    day.run(f"curl -s $PREFECT_API_URL/artifacts/towns-origins/latest | {ROWS}")
    day.run("ls -l stores/towns/latest.zarr | sed 's/.*latest/latest/'; wavecity validate stores/towns | tail -n 1")


def evening(day: Day) -> None:
    """All alerts, all runs."""
    day.say("## Evening")
    day.say("All alerts of the day, and all runs:")
    day.run('grep -o \'"subject": *"[^"]*"\' alerts.jsonl')
    day.run("prefect flow-run ls")


def pictures(day: Day, folder: Path) -> list[tuple[str, str]]:
    """Pictures of Prefect's pages, with what they show; none without Chromium or playwright."""
    program = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        program = None
    if program is None:
        return []
    from PIL import Image

    (run,) = day.ask("flow_runs/filter", {"flow_runs": {"name": {"any_": ["strict-2"]}}})
    pages = (
        ("day-runs.png", "runs", "The runs of the day"),
        ("day-run.png", f"runs/flow-run/{run['id']}", "The run that passed its gate by name, which traced nothing"),
        ("day-automations.png", "automations", "The alerts, which are automations"),
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 800})
        for name, address, _ in pages:
            page.goto(f"http://127.0.0.1:{day.ports['api']}/{address}")
            page.wait_for_timeout(6000)  # until what it asks for is there
            # Few colours are enough, and make a small file.
            picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(64, dither=Image.Dither.NONE)
            picture.save(folder / name, optimize=True)
        browser.close()
    return [(name, title) for name, _, title in pages]


def main() -> None:
    """Run the day, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument(
        "--maps", type=Path, default=Path(os.environ.get("WAVECITY_SHARED", ROOT.parent / "shared")) / "osm"
    )
    parser.add_argument("--pictures", type=Path)
    options = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="wavecity-day-", ignore_cleanup_errors=True) as name:
        day = Day(Path(name))
        (day.folder / "maps").mkdir()
        for file in ("sofia-centre.osm", "granada.osm"):
            shutil.copyfile(options.maps / file, day.folder / "maps" / file)
        with receiver(day), everything_ends(day.folder):
            for part in (morning, two_builds, gate, killed, one_city, evening):
                part(day)
            shown = pictures(day, options.pictures or options.page.parent)
    if shown:
        day.say("Prefect's pages at that time:")
        for file, title in shown:
            day.say(f"![{title}]({file})")
            day.say(f"*{title}.*")
    versions = f"Python {sys.version.split()[0]}, Prefect {importlib.metadata.version('prefect')}"
    versions += f", load average {os.getloadavg()[2]:.0f}"
    head = [
        "# An operator's day",
        f"Written by `python scripts/operators_day.py`, which runs it all: a Prefect server, workers of a process pool, builds "
        f"of a few small scenes, {(time.monotonic() - begun) / 60:.0f} minutes on {os.cpu_count()} cores ({versions}). What "
        "stands below a command is what it printed. The folder of the day is called `/srv/day` here, the checkout "
        "`/srv/wavecity`; ports are the usual ones. Set beforehand: `PREFECT_API_URL=http://127.0.0.1:4200/api`, "
        "`WAVECITY_STORE=/srv/day/stores`, `PREFECT_WORKER_QUERY_SECONDS=1`.",
        "Map data © OpenStreetMap contributors, ODbL.",
    ]
    blocks = [text if text.startswith(("```", "#", "!")) else wrapped(text) for text in (*head, *day.text)]
    options.page.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def wrapped(text: str) -> str:
    """A paragraph in lines of prose."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    main()
