"""What is learned, a module for each kind of task: its columns, rules, tokens, loss and model."""

from biasline.declared import declared, find
from biasline.kinds.columns import Columns
from biasline.kinds.protocols import Learning

LEARNINGS: dict[str, Learning] = declared(__name__, "LEARNING")


def find_learning(kind: str) -> Learning:
    """What a kind of task learns.

    Raises:
        BiaslineError: for a kind that there is not.
    """
    found: Learning = find(LEARNINGS, kind, "kind", "kind")
    return found


def columns_of(kind: str) -> Columns:
    """The columns of a kind of task's examples."""
    return find_learning(kind).columns
