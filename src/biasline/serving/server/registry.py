"""What a server reads of the registry: where aliases point, what versions hold, and how they were evaluated."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from biasline.bases.pin import file_sha256
from biasline.layout import TaskPlace
from biasline.serving.package import Package
from biasline.serving.registered import aliased, model_name, package_files, run_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

# A task and an alias of its model.
Place = tuple[str, str]


@dataclass(frozen=True)
class Version:
    """A registered version.

    Attributes:
        task: whose model it is.
        number: in the registry.
        fingerprint: of its training.
    """

    task: str
    number: str
    fingerprint: str


class Registry(Protocol):
    """As much of a registry as a server asks. Any call may fail where it is away."""

    def versions(self, tasks: Sequence[str], aliases: Iterable[str]) -> dict[Place, Version]:
        """Where aliases point now; those that point nowhere are left out.

        Args:
            tasks: which; none for all that are registered.
            aliases: which.
        """

    def package(self, version: Version, scratch: Path) -> tuple[Package, str]:
        """What a version holds, and the sha256 of its delta's file.

        Args:
            version: which.
            scratch: an empty folder for its files, which must stay until its deltas were put on an engine.

        Raises:
            BiaslineError: naming the first file that is missing or is not what was packaged.
        """

    def predictions(self, version: Version) -> pl.DataFrame:
        """The test rows of its evaluation with the answers given."""


class MlflowRegistry:
    """MLflow's registry.

    Args:
        connect: makes a client of it.
    """

    def __init__(self, connect: "Callable[[], MlflowClient]") -> None:
        self._connect = connect
        self._client: MlflowClient | None = None

    @property
    def client(self) -> "MlflowClient":
        """A client, made when it is first asked for."""
        self._client = self._client or self._connect()
        return self._client

    def versions(self, tasks: Sequence[str], aliases: Iterable[str]) -> dict[Place, Version]:
        """See `Registry`."""
        found = {}
        for task in tasks or list(self._tasks()):
            for alias in aliases:
                version = aliased(self.client, task, alias)
                if version is not None:
                    fingerprint = version.tags.get("biasline.fingerprint", "")
                    found[task, alias] = Version(task, str(version.version), fingerprint)
        return found

    def package(self, version: Version, scratch: Path) -> tuple[Package, str]:
        """See `Registry`."""
        files, pin, sha256 = package_files(self._version(version), scratch)
        return Package.read(files, pin, sha256), file_sha256(files["delta"])

    def predictions(self, version: Version) -> pl.DataFrame:
        """See `Registry`."""
        with tempfile.TemporaryDirectory() as scratch:
            place = TaskPlace(version.task).predictions
            return pl.read_parquet(run_file(self.client, self._version(version), place, Path(scratch)))

    def _version(self, version: Version) -> Any:
        return self.client.get_model_version(model_name(version.task), version.number)

    def _tasks(self) -> Iterator[str]:
        """The tasks of all registered models, page by page."""
        token, begin = None, model_name("")
        while True:
            page = self.client.search_registered_models(max_results=200, page_token=token)
            yield from (model.name.removeprefix(begin) for model in page if model.name.startswith(begin))
            token = page.token
            if not token:
                return
