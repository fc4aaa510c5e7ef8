"""The cells of the study: what is changed, one factor at a time, from where it starts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CELLS = Path(__file__).with_name("cells")


@dataclass(frozen=True)
class Change:
    """What a cell does differently.

    Attributes:
        train: parameters of `train`.
        rates: role of bias → factor of its learning rate.
        average: decay of a running mean of the trained values over the steps, which is what is judged; 0: none.
        smoothing: of labels.
        dropout: whether the base's dropout is on in training.
        head: share of the fitted head's outputs that training begins with.
    """

    train: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    average: float = 0.0
    smoothing: float = 0.0
    dropout: bool = True
    head: float = 1.0


# Biases that the usual advice names, at the rates that were the defaults before the study.
START = {
    "biases": "attention+mlp",
    "learning_rate": 5e-3,
    "head_learning_rate": 1e-3,
    "epochs": 4,
    "min_steps": 400,
    "evaluate_every": 100,
}
_LORA = {"method": "lora", "learning_rate": 1e-3}
_FULL = {"method": "full", "learning_rate": 1e-4}
_SCALES = {"biases": "attention+mlp+scale"}
_LONGER = {"epochs": 12, "min_steps": 1200}
_NORMS = ("norm", "embedding_norm")

CHANGES: dict[str, Change] = {
    "start": Change(),
    "scales": Change(_SCALES),
    "scales-no-dropout": Change(_SCALES, dropout=False),
    "lora": Change(_LORA),
    "full": Change(_FULL),
    "rate-0.3": Change({"learning_rate": 1.5e-3}),
    "scales-rate-4": Change({**_SCALES, "scale_learning_rate": 2e-2}),
    "average": Change({"keep": "last"}, average=0.99),
    "scales-rate-2": Change({**_SCALES, "scale_learning_rate": 1e-2}),
    "norms": Change({"biases": "all"}),
    "steps-3": Change(_LONGER),
    "dropout-off": Change(dropout=False),
    "scales-alone": Change({"biases": "scale"}),
    "head-rate-0.3": Change({"head_learning_rate": 3e-4}),
    "rate-0.5": Change({"learning_rate": 2.5e-3}),
    "rate-2": Change({"learning_rate": 1e-2}),
    "rate-4": Change({"learning_rate": 2e-2}),
    "last": Change({"keep": "last"}),
    "query+mlp_in": Change({"biases": "query+mlp_in"}),
    "head-random": Change({"head_start": "random"}),
    "head-0.3": Change(head=0.3),
    "head-0.1": Change(head=0.1),
    "head-0.03": Change(head=0.03),
    "head-0.1-lora": Change(_LORA, head=0.1),
    "head-0.1-full": Change(_FULL, head=0.1),
    "head-rate-5": Change({"head_learning_rate": 5e-3}),
    "norms-slow": Change({"biases": "all"}, rates=dict.fromkeys(_NORMS, 0.1)),
    "mlp-slow": Change(rates={"mlp_in": 0.3, "mlp_out": 0.3}),
    "attention-slow": Change(rates={"query": 0.3, "value": 0.3, "attention_output": 0.3}),
    "warmup-0": Change({"warmup": 0.0}),
    "warmup-0.2": Change({"warmup": 0.2}),
    "cosine": Change({"schedule": "cosine"}),
    "steps-0.5": Change({"epochs": 2, "min_steps": 200}),
    "batch-16": Change({"batch_size": 16, "min_steps": 800}),
    "batch-64": Change({"batch_size": 64, "min_steps": 200}),
    "smoothing": Change(smoothing=0.1),
    "pooler": Change({"pooling": "model"}),
    "scales-mlp": Change({"biases": "attention+mlp+mlp_scale"}),
    "scales-norms": Change({"biases": "all+scale+norm_scale"}),
    "lora-0.5": Change({**_LORA, "learning_rate": 5e-4}),
    "lora-2": Change({**_LORA, "learning_rate": 2e-3}),
    "full-0.5": Change({**_FULL, "learning_rate": 5e-5}),
    "full-2": Change({**_FULL, "learning_rate": 2e-4}),
    # What helped alone, together.
    "scales-rate-4-average": Change({**_SCALES, "scale_learning_rate": 2e-2, "keep": "last"}, average=0.99),
    "rate-2-average": Change({"learning_rate": 1e-2, "keep": "last"}, average=0.99),
    "steps-3-scales-rate-2": Change({**_SCALES, **_LONGER, "scale_learning_rate": 1e-2}),
    "steps-3-lora": Change({**_LORA, **_LONGER}),
    "steps-3-full": Change({**_FULL, **_LONGER}),
}
# What decides most is asked of every set, largest sets first; all else of the small ones, which take minutes.
_DECISIVE = (
    *("head-0.1", "head-random", "head-0.1-full", "head-0.1-lora", "head-0.3", "head-0.03"),
    *("scales", "lora", "full", "scales-rate-4", "norms", "average", "rate-0.3", "rate-2", "dropout-off"),
    *("scales-no-dropout", "scales-rate-2", "scales-rate-4-average", "rate-2-average"),
    *("full-2", "lora-2", "steps-3", "steps-3-scales-rate-2", "full-0.5", "lora-0.5"),
    *("scales-alone", "steps-3-lora", "steps-3-full"),
)
_ALL, _SMALL = ("sst2-1000", "sst2-6000", "cola", "banking-10"), ("banking-10", "sst2-1000")
SEEDS = (0,)


@dataclass(frozen=True)
class Cell:
    """One training."""

    rows: str
    change: str
    seed: int

    @property
    def set(self) -> str:
        """The name of its rows."""
        return f"{self.rows}@{self.seed}"

    @property
    def name(self) -> str:
        """Its name, and that of its file."""
        return f"{self.rows}-{self.change}-{self.seed}"

    @property
    def path(self) -> Path:
        """What it found."""
        return CELLS / f"{self.name}.json"

    @property
    def train(self) -> dict[str, Any]:
        """The parameters of its training."""
        return {**START, **CHANGES[self.change].train, "seed": self.seed}


def cells() -> Iterator[Cell]:
    """Every cell, those first that say most."""
    for seed in SEEDS:
        for rows in _ALL:
            yield Cell(rows, "start", seed)
        for change in _DECISIVE:
            yield from (Cell(rows, change, seed) for rows in _ALL)
        for change in CHANGES:
            if change not in (*_DECISIVE, "start"):
                yield from (Cell(rows, change, seed) for rows in _SMALL)
