"""What DVC keeps of a task: found by its run cache and lock file, deleted but for what is needed."""

import json

import pytest

from biasline.erasing.cache import Cache

RAW, OLD, NEW, INNER, OTHERS, SHARED = (f"{number:032x}" for number in range(1, 7))
OLD_FOLDER = f"{99:032x}.dir"


def stage(name, task, *outs, raw=RAW):
    deps = [{"path": "data/a/raw.tsv", "md5": raw}, {"path": "src/biasline/data", "md5": "5" * 32 + ".dir"}]
    return {
        "cmd": f"python -m stages.{name} {task}",
        "deps": deps if name == "validate" else [],
        "outs": [{"path": f"data/{task}/{number}", "md5": out} for number, out in enumerate(outs)],
    }


@pytest.fixture
def project(tmp_path):
    """A project whose task `a` had other outs before."""
    files = tmp_path / ".dvc/cache/files/md5"
    for oid in (RAW, OLD, NEW, INNER, OTHERS, SHARED):
        (files / oid[:2]).mkdir(parents=True, exist_ok=True)
        (files / oid[:2] / oid[2:]).write_text(oid)
    (files / OLD_FOLDER[:2] / OLD_FOLDER[2:]).write_text(json.dumps([{"md5": INNER}, {"md5": SHARED}]))
    runs = tmp_path / ".dvc/cache/runs"
    made = [stage("validate", "a", OLD, OLD_FOLDER), stage("train", "a", NEW), stage("train", "b", OTHERS, SHARED)]
    for number, one in enumerate(made):
        (runs / f"{number:02}" / f"{number}").mkdir(parents=True)
        (runs / f"{number:02}" / f"{number}" / "entry").write_text(json.dumps(one))
    now = {"train@a": stage("train", "a", NEW), "validate@a": stage("validate", "a", NEW, raw="7" * 32)}
    (tmp_path / "dvc.lock").write_text(json.dumps({"stages": now}))
    (tmp_path / ".dvc/config").write_text("")
    return tmp_path


def test_earlier_outs_and_raw_data_go_and_others_stay(project, monkeypatch):
    cache = Cache(project)
    earlier = cache.of_task("a", of_commits=False) - cache.needed("a")
    assert earlier == {RAW, OLD, OLD_FOLDER, INNER}
    assert cache.raw_paths("a") == {"data/a/raw.tsv"}
    assert {path.read_text() for path in cache.objects({OLD, SHARED, "8" * 32})} == {OLD, SHARED}
    monkeypatch.setattr(Cache, "_remotes", lambda self: iter([("far", "no way to it")]))
    assert cache.remove("a", earlier) == ["DVC's remote 'far': no way to it"]
    left = {path.read_text() for path in (project / ".dvc/cache/files").rglob("*") if path.is_file()}
    assert left == {NEW, OTHERS, SHARED}
    assert [json.loads(path.read_text())["cmd"] for path in sorted((project / ".dvc/cache/runs").glob("*/*/*"))] == [
        "python -m stages.train a",
        "python -m stages.train b",
    ]
    # DVC would take a folder without an entry for one that has one.
    assert all(any(folder.iterdir()) for folder in (project / ".dvc/cache/runs").glob("*/*"))
    assert cache.remove("a", earlier) == ["DVC's remote 'far': no way to it"]  # as after a crash
