"""What a person sees of a task's runs in MLflow's UI: a real browser, on a real server.

`BIASLINE_PICTURES=folder` keeps the pictures that the tests take.
"""

import json
import os
import re
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from biasline.layout import TaskPlace
from biasline.params import read_params
from biasline.tracking.publish import publish
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect, tracking_uri
from biasline.tracking.views import chart_path, table_path
from tests.conftest import enter, lay_workspace, run_stages
from tests.pipeline.story import tell
from tests.servers import tracking_server

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install selenium")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with its chromedriver on the path"),
]

METHODS = [
    {"method": "bitfit", "biases": "all"},
    {"method": "bitfit", "biases": "value"},
    {"method": "lora", "learning_rate": 1e-3},
    {"method": "prefix", "learning_rate": 2e-2},
    {"method": "full", "learning_rate": 1e-3},
]
PARAMS = ["method", "part", "learning_rate", "trainable"]
METRICS = [
    "tuned.exact_match",
    "valid.best_loss",
    "model.bytes",
    "train.seconds",
    "tuned.exact_match_low",
    "tuned.exact_match_high",
]

# Header and rows as they are on screen; the grid draws the columns that stay and those that scroll apart.
TABLE = """
const text = cell => [cell.getAttribute("col-id"), cell.innerText.trim()];
const place = (cell, side) => cell.getBoundingClientRect()[side];
const sorted = (cells, side) => [...cells].sort((a, b) => place(a, side) - place(b, side));
const headers = sorted(document.querySelectorAll(".ag-header-cell"), "left").map(cell => cell.innerText.trim());
const lines = sorted(document.querySelectorAll(".ag-pinned-left-cols-container .ag-row"), "top");
const rows = {};
for (const row of document.querySelectorAll(".ag-row")) {
  const cells = [...row.querySelectorAll(".ag-cell")].map(text);
  rows[row.getAttribute("row-id")] = {...rows[row.getAttribute("row-id")], ...Object.fromEntries(cells)};
}
return {headers: headers.filter(name => name), order: lines.map(row => row.getAttribute("row-id")), rows: rows};
"""

# The UI draws a run twice, smoothed over and as it is, so lines are counted by the runs' names.
CHART = """
for (const card of document.querySelectorAll("[data-testid=experiment-view-compare-runs-card]")) {
  const plot = card.querySelector(".js-plotly-plot");
  if (!plot || card.innerText.trim().split("\\n")[0] !== arguments[0]) continue;
  return {
    drawn: plot.querySelectorAll(".scatterlayer .trace .js-line").length,
    lines: Object.fromEntries(plot.data.map(line => [line.name, {x: [...line.x], y: [...line.y]}])),
    axis: plot.querySelector(".xtitle")?.textContent,
    legend: card.innerText,
  };
}
return null;
"""


@dataclass(frozen=True)
class Page:
    """A browser, the address of the server it looks at, and the five runs as the store has them."""

    browser: "webdriver.Chrome"
    address: str
    pictures: Path
    experiment: str
    runs: list

    def open(self, path):
        self.browser.get("about:blank")  # an address that differs behind the # alone would not load anew
        self.browser.get(self.address + path)

    def seen(self, what, look):
        """What `look` gives once it is something. Where it stays nothing, the test fails and tells what is there."""
        until = time.monotonic() + 600
        while not (found := look()):
            if time.monotonic() > until:
                text = self.browser.find_element("css selector", "body").text
                self.picture("missing")
                pytest.fail(f"{what}: not on {self.browser.current_url}, where the page says:\n{text[:3000]}")
            time.sleep(0.2)
        return found

    def says(self, *texts):
        """The page's text, each stretch of white space as one blank, once it holds all of these."""

        def look():
            shown = " ".join(self.browser.execute_script("return document.body.innerText").split())
            return shown if all(text in shown for text in texts) else None

        return self.seen(f"texts {texts}", look)

    def picture(self, name):
        self.browser.save_screenshot(str(self.pictures / f"{name}.png"))


def five_runs(folder):
    """Train one task by five methods, each from a commit of its own, and publish them: (experiment's id, runs)."""
    (folder / ".gitignore").write_text("data/small\n.biasline\nmlflow.db\nmlartifacts\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.invalid"]
    params = json.loads((folder / "params.yaml").read_text())
    small = params["tasks"]["small"]
    client, place = connect(), TaskPlace("small")
    for method in METHODS:
        small["train"] = {"min_steps": 30, "epochs": 0.1, "batch_size": 8, "evaluate_every": 10, **method}
        small["train"].setdefault("learning_rate", 1e-2)
        (folder / "params.yaml").write_text(json.dumps(params))
        subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
        subprocess.run(["git", *identity, "commit", "--quiet", "-m", "method"], cwd=folder, check=True)
        task = read_params(folder / "params.yaml").tasks["small"]
        began = time.monotonic()
        run_stages(task, place)
        record = record_of_workspace("small")
        record.observe(**{"train.seconds": round(time.monotonic() - began, 1)})
        publish(client, record)
    experiment = client.get_experiment_by_name("small").experiment_id
    return experiment, client.search_runs([experiment], order_by=["attributes.start_time ASC"])


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    lay_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        experiment, runs = five_runs(folder)
        store = tracking_uri()
    with looking_at(folder, store) as seen:
        yield Page(*seen, experiment, runs)


@contextmanager
def looking_at(folder, store):
    """A browser on a server: the browser, the server's address, and where pictures go."""
    pictures = Path(os.environ.get("BIASLINE_PICTURES") or folder / "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    with tracking_server(folder, store) as (address, _):
        browser = start_browser(folder / "profile")
        try:
            # The panel of MLflow's assistant opens on a first visit and covers a quarter of every picture.
            browser.get(f"{address}/health")
            browser.execute_script("localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')")
            yield browser, address, pictures
        finally:
            browser.quit()


def start_browser(profile):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    quiet = ["quic", "background-networking", "component-update", "sync", "gpu"]
    for argument in ("headless=new", "no-sandbox", "no-first-run", *(f"disable-{name}" for name in quiet)):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--user-data-dir={profile}")
    options.add_argument("--window-size=2060,860")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))


def test_the_table_shows_five_methods_of_one_task_the_best_first(page):
    page.open(table_path(page.experiment))
    wanted = ["Run Name", "Created", *PARAMS, *METRICS]

    def look():
        table = page.browser.execute_script(TABLE)
        return table if len(table["rows"]) == len(METHODS) and table["headers"][: len(wanted)] == wanted else None

    table = page.seen(f"{len(METHODS)} rows with the columns {wanted}", look)
    page.picture("table")
    assert set(table["rows"]) == {run.info.run_id for run in page.runs}
    for run in page.runs:
        row = table["rows"][run.info.run_id]
        assert run.info.run_name in row["attributes.`Run Name`"]
        shown = {name: row[f"params.`{name}`"] for name in PARAMS}
        assert shown == {name: run.data.params.get(name, "-") for name in PARAMS}
        shown = {name: float(row[f"metrics.`{name}`"]) for name in METRICS}
        assert shown == pytest.approx({name: run.data.metrics[name] for name in METRICS}, rel=1e-4)
    matches = [float(table["rows"][run]["metrics.`tuned.exact_match`"]) for run in table["order"]]
    assert len(matches) == len(METHODS)
    assert matches == sorted(matches, reverse=True)
    # The menu of views names the one that is open.
    page.says("Runs of the task small, the best by tuned.exact_match first", "Methods")


def test_the_charts_show_the_losses_of_five_methods_on_one_axis(page):
    names = {run.info.run_name for run in page.runs}
    page.open(chart_path(page.experiment))

    def look():
        chart = page.browser.execute_script(CHART, "train.loss")
        return chart if chart and set(chart["lines"]) == names and chart["drawn"] >= len(names) else None

    chart = page.seen("a chart train.loss with a line per run", look)
    page.picture("charts")
    assert chart["axis"] == "Step"
    for name, line in chart["lines"].items():
        assert f"{name} (train.loss)" in chart["legend"]
        assert line["x"] == [10, 20, 30], name
    ends = {name: line["y"][-1] for name, line in chart["lines"].items()}
    assert ends == pytest.approx({run.info.run_name: run.data.metrics["train.loss"] for run in page.runs}, rel=1e-4)
    headings = page.says("valid.loss", "tuned.exact_match", "Model metrics")
    assert "base.token_accuracy" not in headings, "the other metrics' charts are not folded"


def test_a_run_tells_where_it_comes_from(page):
    run = page.runs[0]
    page.open(f"/#/experiments/{page.experiment}/runs/{run.info.run_id}?workflowType=machine_learning")
    commit = run.data.tags["git.commit"]
    assert re.fullmatch("[0-9a-f]{40}", commit)
    tags = ("git.commit", "data.sha256", "base.digest", "delta.sha256", "version.torch", "biasline.fingerprint")
    shown = page.says("Made again by:", f"git checkout {commit} && dvc repro register@small", *tags)
    assert run.info.run_name in shown
    assert "rows.jsonl" in shown
    page.picture("run")
    page.browser.find_element("xpath", "//*[text()='Show more']").click()
    page.says("Show less", "A bias-only delta of tiny-bloom for the task small")
    page.picture("description")


@pytest.mark.parametrize("name", ["loss", "metric_by_slice", "bias_change", "lengths"])
def test_a_run_shows_its_figures(page, name):
    run = page.runs[0].info.run_id
    page.open(f"/#/experiments/{page.experiment}/runs/{run}/artifacts/figures/{name}.png?workflowType=machine_learning")
    loaded = "return [...document.images].some(image => image.naturalWidth > 300 && image.offsetWidth > 300)"
    page.seen(f"the figure {name}", lambda: page.browser.execute_script(loaded))
    page.picture(f"figure_{name}")


def test_a_run_shows_its_samples(page):
    run = page.runs[0].info.run_id
    path = f"/#/experiments/{page.experiment}/runs/{run}/artifacts/evaluation/samples.md"
    page.open(f"{path}?workflowType=machine_learning")
    headers = "return [...document.querySelectorAll('[role=columnheader]')].map(cell => cell.innerText.trim())"
    wanted = ["row", "prompt", "reference", "base", "tuned"]
    page.seen("the table of samples", lambda: page.browser.execute_script(headers)[: len(wanted)] == wanted)
    page.picture("samples")
    assert "✓" in page.says("Samples")


def test_the_registry_tells_who_let_which_model_out(workspace):
    made, _ = tell(workspace)
    with looking_at(workspace, tracking_uri()) as seen:
        page = Page(*seen, "", [])
        page.browser.set_window_size(1500, 1900)
        page.open("/#/models/biasline-sentiment?workflowType=machine_learning")
        shown = page.says("@ champion", "@ candidate", "settled: rolled back to", "customers complain", "refused")
        page.picture("registry")
        assert "@ previous" not in shown
        page.open("/#/models/biasline-sentiment/versions/2?workflowType=machine_learning")
        page.says("half the training time", "worse", made["B"])
        page.picture("refused")
