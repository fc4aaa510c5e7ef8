"""Whether what was trained and a base belong together."""

from collections.abc import Mapping

from biasline.bases.pin import Pin
from biasline.errors import BiaslineError


def check_base(trained_on: Mapping[str, str], pin: Pin, what: str = "delta") -> None:
    """Refuse what was trained on another base, even on one whose biases are the same.

    Args:
        trained_on: `name` and `digest` of the base in training, as a delta's manifest or train.json has them.
        pin: the base that is there now.
        what: what errors call that which was trained.

    Raises:
        BiaslineError: naming both bases.
    """
    if trained_on.get("digest") != pin.digest:
        raise BiaslineError(
            f"the {what} was trained on the base {trained_on.get('name')} ({trained_on.get('digest', '')[:12]}), "
            f"this is {pin.name} ({pin.digest[:12]})",
            "restore that base and its pin, or train the task anew on this one",
        )
