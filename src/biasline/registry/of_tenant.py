"""What registered versions of a fleet know of one tenant: which delta serves it, why, and how well."""

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.bitfit.deltas import alike
from biasline.errors import BiaslineError
from biasline.evaluation.tenants import CARRIED
from biasline.layout import TaskPlace
from biasline.registry import ledger
from biasline.registry.versions import judged_version
from biasline.serving.registered import model_name, run_file, versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def tenant_told(client: "MlflowClient", version: "ModelVersion", tenant: str) -> dict[str, Any]:
    """What a version knows of a tenant.

    Returns:
        `tenant`, the columns of model/tenants.parquet (rows, steps, losses, which delta `serves` and `why`, the
        `sha256` of an own one), and under `test` those of the evaluation's table.

    Raises:
        BiaslineError: where the version is of no fleet, or does not know the tenant.
    """
    task = version.name.removeprefix(model_name(""))
    place = TaskPlace(task)
    told = f"{version.name} version {version.version}"
    if not version.tags.get("biasline.tenants"):
        raise BiaslineError(f"{told}: is of one, not of a fleet", "name no tenant")
    with tempfile.TemporaryDirectory() as scratch:
        files = [
            run_file(client, version, path, Path(scratch))
            for path in (place.own_report, place.by_tenant / "table.parquet")
        ]
        trained, tested = (_row(path, tenant) for path in files)
        known = pl.read_parquet(files[0], columns=["tenant"])["tenant"].to_list() if trained is None else []
    if trained is None:
        raise BiaslineError(
            f"{told}: tenant {tenant!r}: not among the {len(known)} that it knows", alike(tenant, known)
        )
    beside = ("tenant", "train", "serves", "why")
    return {**trained, "test": {name: value for name, value in (tested or {}).items() if name not in beside}}


def tenant_history(client: "MlflowClient", task: str, tenant: str) -> Iterator[dict[str, Any]]:
    """What served a tenant, champion by champion, oldest first: the decision's time, its version, and `tenant_told`.

    Of a version that is gone, or that does not know the tenant, `missing` says why instead.

    Raises:
        BiaslineError: for a tenant that no champion knew.
    """
    found = list(_history(client, task, tenant))
    if found and all("unknown" in told for told in found):
        raise found[-1]["unknown"]
    for told in found:
        told.pop("unknown", None)
        yield told


def _history(client: "MlflowClient", task: str, tenant: str) -> Iterator[dict[str, Any]]:
    """The same, with the error as `unknown` where a version does not know the tenant."""
    versions = versions_of(client, task)
    for entry in ledger.moves(TaskPlace(task).ledger):
        told = {name: entry.get(name) for name in ("time", "decision", "by", "version", "fingerprint")}
        version = judged_version(versions, entry["fingerprint"], entry.get("package"))
        if version is None:
            yield {**told, "missing": "its version is not in the registry"}
            continue
        try:
            yield {**told, **tenant_told(client, version, tenant)}
        except BiaslineError as error:
            yield {**told, "missing": str(error).partition(" → ")[0], "unknown": error}


def in_words(told: Mapping[str, Any]) -> str:
    """What serves a tenant, and how well, in one line."""
    if "missing" in told:
        return told["missing"]
    line = f"{told['serves']} delta ({told['why']}), {told['train']:,} training rows"
    if told["sha256"]:
        line += f", sha256 {told['sha256'][:12]}"
    test = told["test"]
    if not test.get("rows"):
        return f"{line}; no test row"
    means = ", ".join(f"{name} {test[who]:.3f}" for name, who in _MEANS.items() if test.get(who) is not None)
    compared = test["verdict"] not in ("", CARRIED)
    verdict = f"; beside the shared delta {test['verdict']}" if compared else ""
    return f"{line}; on {test['rows']:,} test rows {means}{verdict}"


_MEANS = {"base": "base", "shared": "shared", "what serves": "tuned"}


def _row(path: Path, tenant: str) -> dict[str, Any] | None:
    found = pl.scan_parquet(path).filter(pl.col("tenant") == tenant).collect().to_dicts()
    if not found:
        return None
    # JSON has no infinite numbers, as the ends of a single row's interval are.
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in found[0].items()}
