"""Verify: ledger, aliases and artifacts held against each other. Reads only."""

from pathlib import Path
from typing import TYPE_CHECKING

from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError, first_line
from biasline.layout import TaskPlace
from biasline.registry import claims, ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION, PREVIOUS
from biasline.registry.signing import standing
from biasline.serving.registered import aliased, has_model, is_as_registered, model_name, package_files

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def verify(client: "MlflowClient", task: str, public: Path | None = None) -> tuple[list[str], list[str]]:
    """Whether each alias points where the ledger says, at a version that loads and is what was registered.

    Args:
        client: client of the tracking store.
        task: name of the task.
        public: a key that the champion, and whichever of the others is signed, must be signed by; None: not asked.

    Returns:
        what is right, and what is wrong, in words.

    Raises:
        BiaslineError: where the ledger or the key cannot be read.
    """
    right, wrong = [], []
    path = TaskPlace(task).ledger
    decided = {alias: move["fingerprint"] for alias, move in ledger.holders(path).items()}
    deltas = {one["fingerprint"]: one["delta_sha256"] for one in ledger.entries(path) if one.get("delta_sha256")}
    if has_model(client, task):
        try:
            claims.check(client, task, path)
        except claims.Elsewhere as error:
            wrong.append(str(error))
    for alias in (CHAMPION, PREVIOUS, CANDIDATE):
        version, due = aliased(client, task, alias), decided.get(alias)
        if version is None:
            if due is not None:
                wrong.append(f"{alias}: missing; the ledger says {due} → biasline sync {task}")
            continue
        fingerprint = version.tags.get("biasline.fingerprint", "")
        if alias != CANDIDATE and due is None:
            wrong.append(f"{alias}: version {version.version} ({fingerprint}), of which the ledger knows nothing")
        elif due is not None and due != fingerprint:
            wrong.append(f"{alias}: points at {fingerprint}; the ledger says {due} → biasline sync {task}")
        elif found := _fault(version, deltas.get(fingerprint)):
            wrong.append(f"{alias}: version {version.version} ({fingerprint}): {found}")
        else:
            right.append(f"{alias}: version {version.version} ({fingerprint}) is what was registered, and loads")
        if public is not None and fingerprint:
            by_key = standing(client, version, public)
            if by_key.signed or alias == CHAMPION:
                told = f"{alias}: version {version.version} ({fingerprint}): {by_key.told}"
                (right if by_key.holds else wrong).append(told)
    return right, wrong


def _fault(version: "ModelVersion", judged: str | None) -> str:
    """What is wrong with a version's files; empty where nothing is.

    Args:
        version: a registered version.
        judged: hash of the delta that the ledger's decisions were about, if there was one.
    """
    from mlflow.exceptions import MlflowException

    try:
        packaged = package_files(version)
        delta = file_sha256(packaged[0]["delta"])
    except (MlflowException, OSError, KeyError) as error:
        task = version.name.removeprefix(model_name(""))
        return f"its files cannot be had: {first_line(error)} → `biasline sync {task}` makes them again from its record"
    if delta != version.tags.get("biasline.delta_sha256"):
        return f"its delta has sha256 {delta[:12]}, registered was {version.tags.get('biasline.delta_sha256', '')[:12]}"
    if judged not in (None, delta):
        return f"its delta has sha256 {delta[:12]}, the ledger's decision was about {judged[:12]}"
    if not is_as_registered(version):
        return "its pin, its task, its deltas or the code beside them is not what was registered"

    from biasline.serving.package import Package

    try:
        Package.read(*packaged).predictor()
    except BiaslineError as error:
        return str(error)
    return ""
