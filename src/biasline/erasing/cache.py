"""DVC's cache and remotes: the outs of a task that its pipeline has no more."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.errors import first_line
from biasline.tracking.git import GitRefused, git

if TYPE_CHECKING:
    from dvc.repo import Repo


# Deps of a stage that are no data.
_CODE = ("src/", "stages/", "custom")


class Cache:
    """What DVC keeps of a project.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._runs = root / ".dvc" / "cache" / "runs"

    def entries(self, task: str) -> list[Path]:
        """Files of the run cache about stages of a task."""
        return [path for path in self._all_entries() if _is_of(_read(path), task)]

    def of_task(self, task: str, *, of_commits: bool) -> set[str]:
        """Hashes of a task's outs and raw data, those of now too, as far as DVC and git know of them.

        Args:
            task: whose.
            of_commits: whether to ask git for every lock file that there was.
        """
        found = set[str]()
        for path in self.entries(task):
            found |= _hashes(_read(path), of_data=True)
        for text in [self._lock, *(self._lock_files() if of_commits else ())]:
            for name, stage in _parsed(text).get("stages", {}).items():
                if name.endswith(f"@{task}"):
                    found |= _hashes(stage, of_data=True)
        return self._with_contents(found)

    def raw_paths(self, task: str) -> set[str]:
        """Where the task's raw data lay, as far as the run cache knows."""
        return {
            str(dep["path"])
            for path in self.entries(task)
            if "stages.validate" in str((stage := _read(path)).get("cmd"))
            for dep in stage.get("deps", ())
            if not str(dep["path"]).startswith(_CODE)
        }

    def needed(self, task: str) -> set[str]:
        """Hashes of what the pipeline has now, and of all that other tasks ever had."""
        found = set[str]()
        for path in self._all_entries():
            stage = _read(path)
            if not _is_of(stage, task):
                found |= _hashes(stage, of_data=False)
        for stage in _parsed(self._lock).get("stages", {}).values():
            found |= _hashes(stage, of_data=True)
        return self._with_contents(found)

    @property
    def _lock(self) -> str:
        path = self._root / "dvc.lock"
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def objects(self, hashes: Iterable[str]) -> list[Path]:
        """The cache's own files of some hashes."""
        return [path for path in map(self._object, hashes) if path.is_file()]

    def remove(self, task: str, hashes: Iterable[str]) -> list[str]:
        """Delete objects here and on every remote, and the run cache's entries that lead to them.

        Returns:
            what could not be reached, in words.
        """
        hashes = set(hashes)
        lost = []
        for name, remote in self._remotes():
            if isinstance(remote, str):
                lost.append(f"DVC's remote {name!r}: {remote}")
                continue
            try:
                for oid in remote.oids_exist(list(hashes)):
                    remote.fs.remove(remote.oid_to_path(oid))
            except Exception as error:  # whatever the remote's library raises
                lost.append(f"DVC's remote {name!r}: {first_line(error)}")
        for path in self.entries(task):
            if _hashes(_read(path), of_data=True) & hashes:
                path.unlink()
        for folder in sorted(self._runs.glob("*/*")):
            with suppress(OSError):  # DVC takes a folder without an entry for one that has one
                folder.rmdir()
        for path in self.objects(hashes):
            path.chmod(0o644)
            path.unlink()
        return lost

    def _remotes(self) -> Iterator[tuple[str, Any]]:
        """Each remote's name, and its objects or why they cannot be had."""
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        if not (self._root / ".dvc").is_dir():
            return
        with Repo(str(self._root)) as repo:
            for name in repo.config["remote"]:
                try:
                    yield name, self._remote(repo, name)
                except (DvcException, OSError, ImportError) as error:
                    yield name, first_line(error)

    def _remote(self, repo: "Repo", name: str) -> Any:
        return repo.cloud.get_remote_odb(name, "erase", hash_name="md5")

    def _all_entries(self) -> Iterator[Path]:
        return (path for path in sorted(self._runs.glob("*/*/*")) if path.is_file())

    def _lock_files(self) -> Iterator[str]:
        with suppress(GitRefused):
            for commit in (git("rev-list", "--all", "--", "dvc.lock", where=self._root) or "").split():
                yield git("show", f"{commit}:dvc.lock", where=self._root) or ""

    def _object(self, oid: str) -> Path:
        return self._root / ".dvc" / "cache" / "files" / "md5" / oid[:2] / oid[2:]

    def _with_contents(self, hashes: set[str]) -> set[str]:
        """With the files of folders."""
        found = set(hashes)
        for oid in hashes:
            if oid.endswith(".dir") and self._object(oid).is_file():
                with suppress(ValueError, KeyError, TypeError):
                    found |= {one["md5"] for one in json.loads(self._object(oid).read_bytes())}
        return found


def _read(path: Path) -> dict[str, Any]:
    return _parsed(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _parsed(text: str) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe").load(text)
    except YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_of(stage: dict[str, Any], task: str) -> bool:
    words = str(stage.get("cmd", "")).split()
    return len(words) > 3 and words[2].startswith("stages.") and words[3] == task


def _hashes(stage: dict[str, Any], of_data: bool) -> set[str]:
    """Of a stage's outs, and of validation's raw data, which `dvc add` may have put into the cache."""
    listed = list(stage.get("outs", ()))
    if of_data and "stages.validate" in str(stage.get("cmd", "")):
        listed += [dep for dep in stage.get("deps", ()) if not str(dep.get("path", "")).startswith(_CODE)]
    return {str(one["md5"]) for one in listed if one.get("md5")}
