"""What is answered, a module for each kind of task: its metrics, comparison, words on the card, and answers served."""

from biasline.declared import declared, find
from biasline.kinds.protocols import Answering
from biasline.metrics.table import declare

ANSWERINGS: dict[str, Answering] = declared(__name__, "ANSWERING")
for _answering in ANSWERINGS.values():
    for _metric in _answering.metrics:
        declare(_metric)


def find_answering(kind: str) -> Answering:
    """What a kind of task answers.

    Raises:
        BiaslineError: for a kind that there is not.
    """
    found: Answering = find(ANSWERINGS, kind, "kind", "kind")
    return found
