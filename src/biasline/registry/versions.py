"""Versions: one per fingerprint and package, found before it is made, since MLflow would double it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError, shown
from biasline.layout import TaskPlace
from biasline.params import method_spec
from biasline.registry import ledger
from biasline.serving.package_check import check_package
from biasline.serving.packaging import log_package, metrics_sha256, package_sha256
from biasline.serving.registered import has_model, model_name, run_of, versions_of
from biasline.tracking.limits import DESCRIPTION, fitted
from biasline.tracking.record import Record, noted_candidate
from biasline.tracking.store import store_lock, unless_made_meanwhile

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_SHORTEST_NAME = 4


def find_version(
    client: "MlflowClient", task: str, fingerprint: str, package: str | None = None
) -> "ModelVersion | None":
    """The newest registered version of a fingerprint (and package, if given); None where there is none."""
    return newest(versions_of(client, task), fingerprint, package)


def newest(versions: "Sequence[ModelVersion]", fingerprint: str, package: str | None = None) -> "ModelVersion | None":
    """As `find_version`, of versions at hand."""
    found = [
        version
        for version in versions
        if version.tags.get("biasline.fingerprint") == fingerprint
        and package in (None, version.tags.get("biasline.package"))
    ]
    return max(found, key=lambda version: int(version.version), default=None)


def judged_version(versions: "Sequence[ModelVersion]", fingerprint: str, package: str | None) -> "ModelVersion | None":
    """The very package that was judged; where a rebuilt store has only the same delta packaged anew, that."""
    return newest(versions, fingerprint, package) or newest(versions, fingerprint)


def named_version(client: "MlflowClient", task: str, run: str) -> "ModelVersion":
    """The newest registered version of a run.

    Args:
        client: client of the tracking store.
        task: name of the task.
        run: a version's number, a fingerprint or the beginning of one, a run's id or name, or its DVC experiment's.

    Raises:
        BiaslineError: where nothing or more than one run matches.
    """
    if run in (ledger.CANDIDATE, ledger.CHAMPION, ledger.PREVIOUS):
        raise no_version(task, run)
    versions = versions_of(client, task)
    if numbered := [version for version in versions if str(version.version) == run]:
        return numbered[0]
    if len(run) < _SHORTEST_NAME:
        known = ", ".join(str(version.version) for version in versions) or "none"
        raise BiaslineError(
            f"{model_name(task)}: no version {run!r}",
            f"versions: {known}; of a fingerprint or a run's name, {_SHORTEST_NAME} characters at least",
        )
    matching = [version for version in versions if _is_called(client, version, run)]
    if len({version.run_id for version in matching}) != 1:
        known = ", ".join(version.tags["biasline.fingerprint"] for version in versions) or "none"
        word = "no registered version" if not matching else f"{len(matching)} registered versions"
        raise BiaslineError(f"{model_name(task)}: {word} of a run {run!r}", f"name one of: {known}")
    return max(matching, key=lambda version: int(version.version))


def no_version(task: str, alias: str) -> BiaslineError:
    """What to say of an alias that points at nothing; the way out depends on whether a decision or a note names it."""
    path = TaskPlace(task).ledger
    if alias == ledger.CANDIDATE:
        due, told = noted_candidate(task) or ledger.nominee(path), "no candidate to promote"
        way = f"make one: `dvc repro register@{task}`, or name a run's: `biasline nominate {task} FINGERPRINT`"
    else:
        due, told = ledger.holders(path).get(alias, {}).get("fingerprint"), f"no {alias}"
        way = f"`biasline promote {task}` makes one, or take the candidate"
    if due:
        told, way = f"{told}: {due} is to be it, and the store has no such version", f"`biasline sync {task}`"
    return BiaslineError(f"{model_name(task)}: {told}", way)


def _is_called(client: "MlflowClient", version: "ModelVersion", run: str) -> bool:
    if version.tags["biasline.fingerprint"].startswith(run) or version.run_id == run:
        return True
    found = run_of(client, version)
    return found is not None and run in (found.info.run_name, found.data.tags.get("dvc.experiment"))


def register_version(client: "MlflowClient", record: Record, run_id: str) -> "ModelVersion":
    """The version of a record's model: packaged, logged to its run and registered unless that was done before.

    A version is named by its fingerprint and by what is packaged with it: the same delta with other generation
    settings, other code or another evaluation is another version, so that what is judged is what is served.

    Raises:
        BiaslineError: where the record's delta was trained on another base than its pin names, or the packaged model
            does not give its evaluation's answers; where its method's models are not registered.
    """
    method = method_spec(record.resolved().train.method)
    if not method.registrable:
        raise BiaslineError(
            f"{model_name(record.task)}: models of method {method.name} are compared, not registered",
            "train it by another method",
        )
    with store_lock():
        package = package_sha256(record)
        found = find_version(client, record.task, record.fingerprint, package)
        if found is not None:
            return found
        place = TaskPlace(record.task)
        if not record.file(place.predictions).is_file():
            raise BiaslineError(
                f"{shown(record.file(place.predictions))}: not there", f"dvc repro --force evaluate@{record.task}"
            )
        with _none_left_behind(client, record.task, run_id):
            model = log_package(record, run_id)
            if not record.is_proved(package):
                check_package(record, model.model_uri)
                record.note_proof(package)
            name = model_name(record.task)
            if not has_model(client, record.task):
                with unless_made_meanwhile():
                    told = f"Bias-only models of the task `{record.task}`."
                    client.create_registered_model(name, description=told)
            tags = {
                "biasline.fingerprint": record.fingerprint,
                "biasline.package": package,
                "biasline.metrics_sha256": metrics_sha256(record.file(place.metrics)),
                "biasline.delta_sha256": file_sha256(record.file(place.delta)),
                "biasline.test_sha256": (record.read(place.metrics) or {}).get("test_sha256", ""),
                "git.commit": record.lineage.get("git.commit", ""),
                "biasline.tenants": str((record.read(place.train_report) or {}).get("tenants", {}).get("count", "")),
            }
            return client.create_model_version(
                name,
                model.model_uri,
                run_id=run_id,
                model_id=model.model_id,  # a server refuses a model's URI without it
                tags={key: value for key, value in tags.items() if value},
                description=_described(client, record, run_id),
            )


@contextmanager
def _none_left_behind(client: "MlflowClient", task: str, run_id: str) -> Iterator[None]:
    """Delete the package that was logged to a run where no version came of it: a next try logs another."""
    before = _packages(client, run_id)
    try:
        yield
    except BaseException:
        with suppress(Exception):  # the store may be away: the first error is what counts
            held = {version.source for version in versions_of(client, task)}
            for package in _packages(client, run_id) - before:
                if f"models:/{package}" not in held:
                    client.delete_logged_model(package)
        raise


def _packages(client: "MlflowClient", run_id: str) -> set[str]:
    """Ids of the models that were logged to a run."""
    experiment = client.get_run(run_id).info.experiment_id
    return {model.model_id for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'")}


def _described(client: "MlflowClient", record: Record, run_id: str) -> str:
    """The card, below links to the run and the commit; as much of it as every store takes."""
    card = record.file(TaskPlace(record.task).card)
    run = client.get_run(run_id)
    commit = record.lineage.get("git.commit", "")
    lines = [
        f"Run [{run.info.run_name}](./#/experiments/{run.info.experiment_id}/runs/{run_id})"
        + (f", commit `{commit}`" if commit else "")
        + f"; `biasline why {record.task}@{record.fingerprint[:8]}` tells all of it.",
        "",
    ]
    told = "\n".join(lines) + (card.read_text(encoding="utf-8") if card.is_file() else "")
    return fitted(told, DESCRIPTION, "\n(shortened; the whole card is the run's artifact `evaluation/card.md`)\n")


def registered_note(record: Record) -> dict[str, str | None]:
    """registered.json: name, fingerprint and hash of the delta (None for methods that make none).

    Nothing that differs between two stores.
    """
    delta = record.file(TaskPlace(record.task).delta)
    has_delta = method_spec(record.resolved().train.method).makes_delta
    if has_delta and not delta.is_file():
        raise BiaslineError(f"{delta}: not there", f"dvc repro --force train@{record.task}")
    return {
        "name": model_name(record.task),
        "fingerprint": record.fingerprint,
        "delta_sha256": file_sha256(delta) if has_delta else None,
    }
