"""Whether a delta and a base belong together."""

from biasline.bases.pin import Pin
from biasline.bitfit import BiasDelta
from biasline.errors import BiaslineError


def check_base(delta: BiasDelta, pin: Pin) -> None:
    """Refuse a delta of another base, even one whose biases are the same.

    Errors: `BiaslineError` naming both bases.
    """
    trained_on = delta.manifest.base
    if trained_on.get("digest") != pin.digest:
        raise BiaslineError(
            f"the delta was trained on the base {trained_on.get('name')} ({trained_on.get('digest', '')[:12]}), "
            f"this is {pin.name} ({pin.digest[:12]})",
            "restore that base and its pin, or train the task anew on this one",
        )
