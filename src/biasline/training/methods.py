"""What is trained: biases, a head alone, a LoRA adapter, a prefix, or everything.

One door for the loop, artifacts and evaluation.
BitFit is what this project is about; the others are what it is compared with, on the same data, by the same loop.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from biasline.bases.pin import Pin
from biasline.bitfit import BiasDelta, BiasTuning, by_role, inspect_biases, select_linears, tune_biases, tune_head
from biasline.bitfit.delta import frozen_hashes
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError, first_line
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace
from biasline.params import ADAPTER_METHODS, DELTA_METHODS, ResolvedTrain, Train


class Tuning(Protocol):
    """What the loop asks of whatever is trained.

    A step is: `zero_grad` of the optimizer; backward and `collect`, once or several times; clip; the optimizer's step;
    `write()`.
    """

    @property
    def masters(self) -> list[nn.Parameter]:
        """All that the optimizer works on, fp32."""

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """The masters: of what is tuned, and of a new head; one of them may be empty."""

    def to(self, device: torch.device) -> None:
        """Move it to where the model is."""

    def collect(self, add: bool = False) -> None:
        """Move the model's gradients to the masters, or add them to theirs; zero where there is none.

        Args:
            add: false for the first pass after the optimizer's `zero_grad`, true for those that follow it.
        """

    def write(self) -> None:
        """Copy what the optimizer made into the model, cast to its dtype."""

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the collected gradient per part."""


class WholeTuning:
    """Whole parameters, through fp32 masters where the model's own dtype is another.

    Args:
        parts: what they are → the parameters; the first is tuned at the method's rate, `head` at the head's.
    """

    def __init__(self, parts: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self._parts = {
            name: [
                (part, part if part.dtype == torch.float32 else nn.Parameter(part.detach().float())) for part in found
            ]
            for name, found in parts.items()
        }

    @property
    def masters(self) -> list[nn.Parameter]:
        """All masters: what is tuned, then the head."""
        return [master for group in self.groups for master in group]

    @property
    def groups(self) -> list[list[nn.Parameter]]:
        """The masters of what is tuned, and those of the head."""
        body = [master for name, pairs in self._parts.items() if name != "head" for _, master in pairs]
        return [body, [master for _, master in self._parts.get("head", [])]]

    def to(self, device: torch.device) -> None:
        """Move the masters that are not the parameters themselves."""
        for part, master in self._pairs():
            if master is not part:
                master.data = master.data.to(device)

    def collect(self, add: bool = False) -> None:
        """Move or add the model's gradients to the masters; see `Tuning.collect`."""
        for part, master in self._pairs():
            # Of a master that is the parameter itself, torch has the sum already.
            before = master.grad if add and master is not part else None
            if part.grad is None:
                master.grad = torch.zeros_like(master) if before is None else before
            elif master is not part:
                master.grad = part.grad.float() if before is None else before.add_(part.grad)
                part.grad = None

    def write(self) -> None:
        """Copy the masters into the model, cast to its dtype."""
        with torch.no_grad():
            for part, master in self._pairs():
                if master is not part:
                    part.copy_(master)

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the collected gradient per part."""
        return {
            name: float(
                torch.stack([master.grad.square().sum() for _, master in pairs if master.grad is not None]).sum()
            )
            ** 0.5
            for name, pairs in self._parts.items()
            if pairs
        }

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return [pair for pairs in self._parts.values() for pair in pairs]


@dataclass(frozen=True)
class Origin:
    """Where a training comes from, as its artifact tells it."""

    pin: Pin
    labels: Sequence[str]
    score: dict[str, float]
    about: dict[str, str]


@dataclass
class Trainee:
    """A base made ready by one method.

    Attributes:
        model: the base, with an adapter where the method has one.
        tuning: what is trained of it.
        total: parameters of the base with its head.
        counts: what is trained → number of entries: `biases`, `norm_scale`, `adapter`, `weights`, `head`.
        roles: bias role, or part → number of trained entries.
        notes: what should be said about the choice.
        injected: biases that were put in.
        what: what is trained, in words.
        save: writes the artifact into a folder, under the names that a task's place has for it.
    """

    model: PretrainedModel
    tuning: Tuning
    total: int
    counts: dict[str, int]
    what: str
    roles: dict[str, int]
    save: Callable[[TaskPlace, Path, Origin], None]
    notes: Sequence[str] = ()
    injected: int = 0

    @property
    def trainable(self) -> dict[str, float]:
        """Trained entries: a new head apart from the rest, their sum, and the rest's share of all parameters.

        The head is not in the share: a figure that mixes the two, or hides the head, tells nothing. Norm scales are not
        in it either: they are no biases.
        """
        tuned = sum(count for name, count in self.counts.items() if name not in ("head", "norm_scale"))
        return {**self.counts, "total": sum(self.counts.values()), "share": tuned / self.total}


# Peak learning rates times the width of the base: found on a BERT of width 384, and the wider a model the lower they
# have to be (Yang et al. 2022, Tensor Programs V, for Adam). (what is tuned, a new head)
_PEAKS = {"bitfit": (1.92, 0.384), "head": (1.92, 1.92), "lora": (0.384, 0.384), "full": (0.0384, 0.384)}
_PEAKS["prefix"] = (3.84, 0.384)


# A rate that differs so many times from the usual one is told.
_FAR = 5


def with_rates(params: Train, model: PretrainedModel) -> ResolvedTrain:
    """The parameters with learning rates in the place of those that were left out, to two digits."""
    width = model.config.get_text_config().hidden_size
    peaks = (float(f"{peak / width:.2g}") for peak in _PEAKS[params.method])
    asked = (params.learning_rate, params.head_learning_rate)
    rates = [peak if given is None else given for given, peak in zip(asked, peaks, strict=True)]
    if params.method == "head":  # there is nothing else
        rates[0] = rates[1]
    taken = {"learning_rate": rates[0], "head_learning_rate": rates[1]}
    return ResolvedTrain.model_validate(params.model_dump() | taken)


def odd_rates(params: Train, model: PretrainedModel) -> list[str]:
    """What should be said about learning rates that were made for biases, where something else is trained."""
    if params.method == "bitfit":
        return []
    usual = with_rates(params.model_copy(update={"learning_rate": None, "head_learning_rate": None}), model)
    names = ("head_learning_rate",) if params.method == "head" else ("learning_rate", "head_learning_rate")
    told = []
    for name in names:
        asked, taken = getattr(params, name), getattr(usual, name)
        if asked is not None and not taken / _FAR < asked < taken * _FAR:
            told.append(
                f"train.{name} is {asked:g}; {params.method} usually takes {taken:g} on a base of this width: leave it "
                "out, or the comparison is one of rates"
            )
    return told


def make_ready(model: PretrainedModel, head: list[str], params: Train) -> Trainee:
    """Freeze a base but for what `params.method` trains.

    Args:
        model: the base.
        head: names of the parameters of a new head, trained whole whatever the method.
        params: its method, and that method's own parameters.

    Raises:
        BiaslineError: where the method has nothing to train in this base.
    """
    return _METHODS[params.method](model, head, params)


def apply_tuned(method: str, model: PretrainedModel, place: TaskPlace) -> PretrainedModel:
    """A base, loaded as for training, with what was trained in its place.

    Returns:
        the model to ask; for an adapter another object around the same base.
    """
    if method in DELTA_METHODS:
        BiasDelta.load(place.delta).apply(model)
        return model
    found = place.adapter if method in ADAPTER_METHODS else place.weights
    if not found.exists():
        raise BiaslineError(f"{found}: not there", f"dvc repro train@{place.task}")
    if method in ADAPTER_METHODS:
        from peft import PeftModel

        with _no_news():
            return PeftModel.from_pretrained(model, str(found)).eval()
    weights = load_file(found)
    with torch.no_grad():
        for name, part in model.named_parameters():
            part.copy_(weights[name])
    return model


def _biases(model: PretrainedModel, head: list[str], params: Train) -> Trainee:
    tuning = tune_biases(model, params.biases, params.layers, params.pattern, inject=params.inject, head=head)
    return _of_delta(tuning, f"biases {params.biases}", tuning.selection.notes)


def _head(model: PretrainedModel, head: list[str], params: Train) -> Trainee:
    return _of_delta(tune_head(model, head), "the head alone", ())


def _of_delta(tuning: BiasTuning, what: str, notes: Sequence[str]) -> Trainee:
    frozen = frozen_hashes(tuning)  # now, while the base is whole in this process

    def save(place: TaskPlace, folder: Path, origin: Origin) -> None:
        base = {"name": origin.pin.name, "digest": origin.pin.digest}
        delta = BiasDelta.of(tuning, base, origin.about, origin.labels, origin.score, frozen)
        delta.save(folder / place.delta.name)

    chosen = tuning.selection
    scales = {"norm_scale": chosen.scale_count} if chosen.scale_count else {}
    counts = {"biases": chosen.count, **scales, "head": tuning.head_count}
    roles, injected = by_role(chosen.biases), len(tuning.injection.names)
    model = cast(PretrainedModel, tuning.model)
    return Trainee(model, tuning, tuning.inventory.total, counts, what, roles, save, notes, injected)


def _lora(model: PretrainedModel, head: list[str], params: Train) -> Trainee:
    from peft import LoraConfig

    asked = params.lora
    targets = select_linears(inspect_biases(model), asked.layers)
    config = LoraConfig(
        r=asked.rank,
        lora_alpha=asked.alpha,
        lora_dropout=asked.dropout,
        target_modules=sorted(targets),
        modules_to_save=_modules(head),
    )
    return _adapter(
        model, config, params, f"LoRA of rank {asked.rank} on {len(targets)} linear layers ({asked.layers})"
    )


def _prefix(model: PretrainedModel, head: list[str], params: Train) -> Trainee:
    from peft import PrefixTuningConfig

    count = params.prefix.tokens
    # The kind of model says how PEFT hands the prefix on.
    answers = hasattr(model, "prepare_inputs_for_generation")
    if not answers and not head:
        raise BiaslineError(
            "train.method prefix: with a prefix PEFT trains the base's own head as well", "set train.head: train or new"
        )
    task_type = "CAUSAL_LM" if answers else "SEQ_CLS"
    config = PrefixTuningConfig(task_type=task_type, num_virtual_tokens=count, modules_to_save=_modules(head))
    return _adapter(model, config, params, f"a prefix of {count} virtual tokens in each layer")


def _modules(head: list[str]) -> list[str] | None:
    return sorted({name.rpartition(".")[0] for name in head}) or None


def _adapter(model: PretrainedModel, config: Any, params: Train, what: str) -> Trainee:
    """What PEFT makes of a config, seeded; its rest is frozen."""
    from peft import get_peft_model

    total = inspect_biases(model).total
    torch.manual_seed(params.seed)
    try:
        with _no_news():
            adapted = get_peft_model(model, config)
    except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise BiaslineError(
            f"{what}: not on a {model.config.model_type}: {first_line(error)}", "choose other layers or another method"
        ) from None
    parts: dict[str, list[nn.Parameter]] = {"adapter": [], "head": []}
    for name, part in adapted.named_parameters():
        if part.requires_grad:
            parts["head" if ".modules_to_save." in name else "adapter"].append(part)

    def save(place: TaskPlace, folder: Path, origin: Origin) -> None:
        target = folder / place.adapter.name
        adapted.save_pretrained(str(target))
        (target / "README.md").unlink(missing_ok=True)  # a form to be filled in
        path = target / "adapter_config.json"
        told = load_json(path, "train again") | {"base_model_name_or_path": origin.pin.name}
        # Sets come in an order of each process's own.
        told = {key: sorted(value) if isinstance(value, list) else value for key, value in told.items()}
        path.write_text(dump_json(told), encoding="utf-8")

    counts = {"biases": 0} | _counts(parts)
    return Trainee(adapted, WholeTuning(parts), total, counts, what, {"adapter": counts["adapter"]}, save)


@contextmanager
def _no_news() -> Iterator[None]:
    """Without what PEFT is told to change by later versions of Transformers: nothing for a user to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def _everything(model: PretrainedModel, head: list[str], params: Train) -> Trainee:
    inventory = inspect_biases(model)
    model.requires_grad_(True)
    parts: dict[str, list[nn.Parameter]] = {"weights": [], "head": []}
    for name, part in model.named_parameters():
        parts["head" if name in head else "weights"].append(part)

    def save(place: TaskPlace, folder: Path, origin: Origin) -> None:
        # Parameters that are tied come once. One key of metadata: several come in an order of each process's own.
        weights = {name: part.detach().contiguous() for name, part in model.named_parameters()}
        save_file(weights, folder / place.weights.name, {"base": origin.pin.name})

    counts = {"biases": 0} | _counts(parts)
    roles = {"weights": counts["weights"]}
    return Trainee(model, WholeTuning(parts), inventory.total, counts, "every parameter", roles, save)


def _counts(parts: dict[str, list[nn.Parameter]]) -> dict[str, int]:
    return {name: sum(part.numel() for part in found) for name, found in parts.items()}


_METHODS = {"bitfit": _biases, "head": _head, "lora": _lora, "prefix": _prefix, "full": _everything}
