"""Claims: who moved a task's champion on a store that several checkouts share.

Each checkout has a ledger of its own, and MLflow has neither transactions nor a compare-and-swap. So a decision that
moves the champion is claimed by a tag of the registered model, written first and read back after: of two that claim at
one moment, at least one sees the other's claim, and whoever sees one gives way. A claim that nobody stood against is
settled and stays, so that a checkout whose ledger lacks a settled move knows that it is behind.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from biasline.errors import BiaslineError
from biasline.registry import ledger
from biasline.serving.registered import model_name
from biasline.tracking.limits import REGISTRY_TAG, fitted
from biasline.tracking.store import upsert

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow import MlflowClient

_KEY = "champion."
_OPEN, _SETTLED = "open: ", "settled: "


class Elsewhere(BiaslineError):
    """Another checkout moved the champion, and the ledger here does not tell of it."""


class _Claim(NamedTuple):
    """A tag: `champion.NUMBER.ID` → `settled: promoted 1a2b3c4d by ann, 2026-…`.

    Attributes:
        number: how many moves the ledger has with this one.
        id: that of the ledger's line.
    """

    number: int
    id: str
    settled: bool
    told: str

    @classmethod
    def of(cls, number: int, move: dict[str, Any]) -> "_Claim":
        told = (
            f"{move['decision']} {move['fingerprint'][:8]} by {fitted(move['by'], REGISTRY_TAG // 2)}, {move['time']}"
        )
        return cls(number, move["id"], False, told)

    @property
    def key(self) -> str:
        return f"{_KEY}{self.number}.{self.id}"


def check(client: "MlflowClient", task: str, path: "Path") -> None:
    """Whether the ledger here tells of every move that is settled on the store.

    Raises:
        Elsewhere: naming the move that it lacks.
    """
    known = {entry["id"] for entry in ledger.entries(path)}
    for claim in _claims(client, task):
        if claim.settled and claim.id not in known:
            raise Elsewhere(
                f"{model_name(task)}: another checkout moved the champion ({claim.told}); {path.name} here lacks it",
                f"`git pull` brings its ledger; if that is lost for good, delete the model's tag `{claim.key}`",
            )


def settle(client: "MlflowClient", task: str, path: "Path") -> None:
    """Claim the ledger's last move on the store, unless that was done.

    Raises:
        Elsewhere: where another checkout moved the champion first or at the same time. What the ledger here says since
            is withdrawn then, by lines of its own: it never took hold.
    """
    moves, claims = ledger.moves(path), _claims(client, task)
    settled = {claim.id for claim in claims if claim.settled}
    try:
        check(client, task, path)
        if not moves or moves[-1]["id"] in settled:
            return
        *earlier, last = (_Claim.of(number, move) for number, move in enumerate(moves, 1))
        if not claims:  # a store that is new, or was wiped
            for claim in earlier:
                upsert(client.set_registered_model_tag, model_name(task), claim.key, _SETTLED + claim.told)
        upsert(client.set_registered_model_tag, model_name(task), last.key, _OPEN + last.told)
        known = {move["id"] for move in moves}
        # An open claim of a number that was settled since is one that gives way, or was cut off.
        against = [one for one in _claims(client, task) if one.id not in known and one.number >= last.number]
        if against:
            raise Elsewhere(
                f"{model_name(task)}: another checkout moves the champion at this moment ({against[0].told})",
                f"try again; if that one was cut off, `biasline sync {task}` there ends it",
            )
    except Elsewhere:
        _withdraw(client, task, path)
        raise
    upsert(client.set_registered_model_tag, model_name(task), last.key, _SETTLED + last.told)


def _withdraw(client: "MlflowClient", task: str, path: "Path") -> None:
    """Take back the ledger's last moves that are not settled, newest first."""
    claims = {claim.id: claim for claim in _claims(client, task)}
    for entry in reversed(ledger.moves(path)):
        claim = claims.get(entry["id"])
        if claim is not None and claim.settled:
            return
        told = {name: entry.get(name) for name in ("by", "version", "fingerprint")}
        ledger.append(path, ledger.WITHDRAWN, reason="another checkout was quicker", of=entry["id"], **told)
        if claim is not None:
            client.delete_registered_model_tag(model_name(task), claim.key)


def _claims(client: "MlflowClient", task: str) -> list[_Claim]:
    found = []
    for key, value in client.get_registered_model(model_name(task)).tags.items():
        number, _, own = key.removeprefix(_KEY).partition(".")
        if key.startswith(_KEY) and number.isdigit():
            told = value.removeprefix(_OPEN).removeprefix(_SETTLED)
            found.append(_Claim(int(number), own, value.startswith(_SETTLED), told))
    return found
