"""What many tests share: the repository, real data where they are, a small model, a workspace of its own."""

import io
import json
import os
import shutil
import subprocess
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# No test judges by the clock: other work on the machine makes anything slow.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
DEMO_BASE = ROOT / "data" / "bases" / "tiny-bloom"


# Rooms whose tests run whole stages, make stores and start processes, and fixtures that do so for others.
_E2E_ROOMS = ("benchmarks", "pipeline", "real", "registry", "serving", "tracking")
_E2E_FIXTURES = {"fleet", "project", "store"}

# Files that take minutes, slow tests or others, about the longest first. One that is missing costs time and no more.
_LONG = (
    "test_resume.py",
    "test_repro.py",
    "test_backends.py",
    "test_browser.py",
    "test_ranks.py",
    "test_outage.py",
    "test_examples.py",
    "test_ci.py",
    "test_serve.py",
    "test_crashes.py",
    "test_transformers_export.py",
    "test_registry.py",
    "test_restore.py",
    "test_reading.py",
    "test_checkpoint.py",
    "test_story.py",
    "test_engine.py",
    "test_cli.py",
    "test_evidence.py",
    "test_reuse.py",
    "test_methods.py",
    "test_verify.py",
    "test_pyfunc.py",
    "test_bad_input.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell the tier of each test by where it stands; `slow` is marked one by one, and so is `e2e` in other rooms.

    Files that take long come first: each of several processes takes the next file, and with the short ones last all end
    at about the same time.
    """
    for item in items:
        room = item.path.relative_to(ROOT / "tests").parts[0]
        if room in _E2E_ROOMS or _E2E_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("e2e")
    place = {name: number for number, name in enumerate(_LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(_LONG) + (item.get_closest_marker("e2e") is None)))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture
def shared() -> Path:
    """Real data, models and tokenizers beside the checkout; absent in a fresh clone elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared with real data beside this checkout")
    return SHARED


@pytest.fixture
def bloom():
    """A random BLOOM of 2 layers, hidden 32, 4 heads, vocabulary 100; the same each time."""
    import torch
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    config = BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4, pad_token_id=3)
    model = BloomForCausalLM(config)
    # Biases start at zero and norms at one; give each entry a value of its own, so that a slip shows.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


@pytest.fixture(scope="session")
def demo_tokenizer():
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(DEMO_BASE))


def lay_workspace(folder: Path) -> None:
    """The demo base, and 200 of the demo rows as the task `small`."""
    bases = folder / "data" / "bases"
    shutil.copytree(DEMO_BASE, bases / "tiny-bloom")
    shutil.copy(DEMO_BASE.with_suffix(".json"), bases)
    rows = (ROOT / "data" / "instruct" / "raw.jsonl").read_text(encoding="utf-8").splitlines()[:200]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "dvc.yaml").write_text("stages: {}\n")
    small = {"base": "data/bases/tiny-bloom.json", "data": "rows.jsonl"}
    small["train"] = {"biases": "all", "min_steps": 4, "epochs": 0.1, "batch_size": 8, "learning_rate": 1e-2}
    small["evaluate"] = {"max_new_tokens": 4, "slices": ["skill"]}
    (folder / "params.yaml").write_text(json.dumps({"tasks": {"small": small}}))


# Gates that let any model of the task `small` pass.
LENIENT_GATES = {"floor": 0.0, "better_than_base": False, "margin": 1.0, "max_latency": 99.0}


# MLflow itself sets the last two, for all of a process and what it starts, once a test has connected to a store.
_OF_ANOTHER_PROJECT = ("DVC_ROOT", "DVC_EXP_NAME", "DVC_STAGE", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a folder the project that this process works in."""
    monkeypatch.chdir(folder)
    for name in _OF_ANOTHER_PROJECT:
        monkeypatch.delenv(name, raising=False)


def without_package_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds each time; `tests/serving/test_package_check.py` and the whole runs do it."""
    monkeypatch.setattr("biasline.registry.versions.check_package", lambda record, uri: None)


@pytest.fixture
def workspace(tmp_path, monkeypatch, request) -> Path:
    """A project folder of its own, with the task `small`."""
    lay_workspace(tmp_path)
    enter(tmp_path, monkeypatch)
    without_package_check(monkeypatch)
    # Figures are made, but to draw them takes a third of a registration.
    if request.node.get_closest_marker("draws") is None:
        monkeypatch.setattr("biasline.tracking.contents._draw", lambda figure, path: path.write_bytes(b""))
    return tmp_path


def run_stages(task, place) -> str:
    """Validate to evaluate, in this process; what evaluation said."""
    from biasline.data.augment import augment
    from biasline.data.validate import validate
    from biasline.evaluation.evaluate import evaluate
    from biasline.layout import write_text
    from biasline.tokens.sets import tokenize
    from biasline.training.train import train

    write_text(place.resolved, task.model_dump_json())
    validate(task, place)
    augment(task, place)
    tokenize(task, place)
    train(task, place, lambda start: lambda *_: None)
    return evaluate(task, place).told


def run_other(folder: Path, kind: str, **train):
    """A classification or regression called `other`, through its stages in few steps: its task and place."""
    from biasline.layout import TaskPlace
    from biasline.params import Task

    name, answers = {"classification": ("label", ["low", "high"]), "regression": ("score", [1.5, 4.0])}[kind]
    rows = [{"text": f"sample {number} is {number % 2}", name: answers[number % 2]} for number in range(80)]
    (folder / "other.json").write_text(json.dumps(rows))
    task = Task(
        kind=kind,
        base="data/bases/tiny-bloom.json",
        data="other.json",
        quality={"near_duplicate": 1.0, "off": ["leak"]},
        train={"biases": "all", "min_steps": 10, "epochs": 0.1, "batch_size": 8, **train},
    )
    place = TaskPlace("other")
    run_stages(task, place)
    return task, place


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory) -> Path:
    """The task's folder after validate, tokenize, train and evaluate, for `trained` to copy."""
    from biasline.layout import TaskPlace
    from biasline.params import read_params

    folder = tmp_path_factory.mktemp("trained")
    lay_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        task, place = read_params(folder / "params.yaml").tasks["small"], TaskPlace("small")
        run_stages(task, place)
    return folder / place.folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A tracking store without runs, as a file: MLflow takes seconds to make one, all its migrations one by one."""
    from biasline.tracking.store import connect

    folder = tmp_path_factory.mktemp("store")
    lay_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        connect()
    return folder / "mlflow.db"


@pytest.fixture
def store(workspace, empty_store) -> Path:
    """The workspace with a store that is there already, without runs."""
    shutil.copy(empty_store, workspace)
    return workspace


@pytest.fixture
def trained(store, trained_once):
    """The workspace with the task `small` trained and evaluated, and an empty store: its task and place."""
    from biasline.layout import TaskPlace
    from biasline.params import read_params

    task, place = read_params(store / "params.yaml").tasks["small"], TaskPlace("small")
    shutil.copytree(trained_once, place.folder)
    return task, place


FLEET_NAMES = ("one", "two & more", "three/3", "few")


def lay_fleet(folder: Path) -> None:
    """A workspace with rows of four tenants, one of whom has too few for a delta of its own, as the task `fleet`."""
    from biasline.demo.shops import shops, to_jsonl

    lay_workspace(folder)
    made = [
        replace(shop, name=name, rows=rows)
        for shop, name, rows in zip(shops(4), FLEET_NAMES, (40, 36, 44, 6), strict=True)
    ]
    (folder / "shops.jsonl").write_text(to_jsonl(tuple(made)), encoding="utf-8")
    fleet = {
        "base": "data/bases/tiny-bloom.json",
        "data": "shops.jsonl",
        "tenants": {"column": "shop", "min_steps": 6, "epochs": 0.1, "evaluate_every": 3},
        "train": {"biases": "all", "min_steps": 6, "epochs": 0.1, "batch_size": 8, "learning_rate": 1e-2},
        "evaluate": {"max_new_tokens": 4, "slices": ["shop"]},
        "gates": LENIENT_GATES,
    }
    (folder / "params.yaml").write_text(json.dumps({"tasks": {"fleet": fleet}}))


@pytest.fixture(scope="session")
def fleet_once(tmp_path_factory) -> Path:
    """The folder of the task `fleet` after its stages, and what it left beside, for `fleet` to copy."""
    from biasline.layout import TaskPlace
    from biasline.params import read_params

    folder = tmp_path_factory.mktemp("fleet")
    lay_fleet(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        run_stages(read_params(folder / "params.yaml").tasks["fleet"], TaskPlace("fleet"))
    return folder


@pytest.fixture
def fleet(workspace, fleet_once):
    """The workspace with the task `fleet` trained and evaluated: its task and place."""
    from biasline.layout import TaskPlace
    from biasline.params import read_params

    for name in ("shops.jsonl", "params.yaml"):
        shutil.copy(fleet_once / name, workspace)
    place = TaskPlace("fleet")
    shutil.copytree(fleet_once / place.folder, place.folder)
    shutil.copytree(fleet_once / ".biasline", ".biasline", dirs_exist_ok=True)
    return read_params(workspace / "params.yaml").tasks["fleet"], place


# What registering leaves in a project, beside the outs.
_REGISTERED = ("mlflow.db", "mlartifacts", ".biasline")


@pytest.fixture(scope="session")
def registered_once(tmp_path_factory, trained_once, empty_store) -> Path:
    """A project with the task `small` trained and registered, for `registered_small` to copy."""
    from biasline.layout import TaskPlace
    from biasline.registry.sync import register
    from biasline.tracking.record import record_of_workspace
    from biasline.tracking.store import connect

    folder = tmp_path_factory.mktemp("registered")
    lay_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        without_package_check(patch)
        shutil.copytree(trained_once, TaskPlace("small").folder)
        shutil.copy(empty_store, folder)
        register(connect(), record_of_workspace("small"))
    return folder


@pytest.fixture
def registered_small(trained, workspace, registered_once):
    """The workspace with the task `small` registered, as if that were done here: a client and the record.

    MLflow takes seconds to package a model, so that is done once and copied.
    """
    from mlflow.tracking._tracking_service import utils

    from biasline.tracking.record import record_of_workspace
    from biasline.tracking.store import connect

    for name in _REGISTERED:
        source = registered_once / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, workspace / name)
    # Packages note where they were made.
    for described in (workspace / "mlartifacts").rglob("MLmodel"):
        text = described.read_text(encoding="utf-8")
        described.write_text(text.replace(str(registered_once), str(workspace)), encoding="utf-8")
    utils._artifact_repos_cache.clear()  # it remembers where the files of a run are, by its id, which copies share
    with redirect_stderr(io.StringIO()):  # "the store was made in …"
        client = connect()
    return client, record_of_workspace("small")


class Project:
    """A clone of this repository, as it stands in the working tree, in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, command: str, *, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a shell command in the clone; its output is shown when the test fails."""
        import sys

        env = {key: value for key, value in os.environ.items() if key not in (*_OF_ANOTHER_PROJECT, "PYTHONPATH")}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        env |= {"PYTHONPATH": str(self.folder / "src"), "NO_COLOR": "1", **environment}
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=env, capture_output=True, text=True, check=False
        )
        print(f"$ {command}\n{done.stdout}{done.stderr}")
        if check:
            assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def python(self, script: str, *, cd: str = ".", **environment: str) -> str:
        """Standard output of a Python script run in a process of its own."""
        path = self.folder.parent / "script.py"
        path.write_text(script, encoding="utf-8")
        return self.run(f"cd {cd} && python {path}", **environment).stdout

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.folder / path).read_text(encoding="utf-8")
        assert old in text
        (self.folder / path).write_text(text.replace(old, new), encoding="utf-8")

    def commit(self, message: str = "change") -> None:
        self.run(f"git add -A && git commit --quiet --allow-empty -m '{message}'")


def clone(folder: Path) -> Project:
    """Clone the repository's HEAD and lay uncommitted changes of the working tree over it, committed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    changed = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, changed):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for ledger in (folder / "data").glob("*/promotions.jsonl"):
        ledger.unlink()  # decisions about this checkout's models say nothing about the clone's
    project = Project(folder)
    project.run("git config user.name tests && git config user.email tests@example.invalid")
    project.commit("the working tree")
    return project


@pytest.fixture
def project(tmp_path) -> Project:
    return clone(tmp_path / "clone")
