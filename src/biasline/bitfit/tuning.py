"""Training biases, and scales, in place: all else frozen, fp32 masters beside the model's own values."""

from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from biasline.bitfit.applied import Traces, applied_to
from biasline.bitfit.architectures import architecture_of
from biasline.bitfit.injection import Injection
from biasline.bitfit.inventory import Bias, Inventory, inspect_biases, storage_of, unwrapped
from biasline.bitfit.roles import is_scale
from biasline.bitfit.selection import Selection, select_biases
from biasline.errors import BiaslineError

Head = Literal["auto", "train", "keep"] | Sequence[str]


class BiasTuning:
    """The chosen biases of one model, ready to train, and scales and the head if they are trained.

    One flat fp32 vector, `master`, holds all trained biases in the order of `selection.biases`. The optimizer works
    on it: a bf16 bias would lose small updates, and a fused bias can be trained in part because only its chosen
    entries are in the vector. A step is: backward; `collect()`; clip; `optimizer.step()`; `write()`. The optimizer
    that `optimizer()` gives does `collect` and `write` by itself.

    Args:
        model: frozen here but for what is trained; chosen biases that it lacks are injected.
        inventory: its biases.
        selection: the chosen ones.
        head: names of the head's parameters that are trained, weights and all.
        new: those of them that the base's files do not have.

    Attributes:
        master: the trained bias entries, (n,), fp32; of none where scales or a head alone are trained.
        scale_master: the entries of scales, likewise.
        head_master: the entries of the head's parameters, or None.
        originals: key → what the entries were before training, in the model's dtype.
        injection: the biases that were put in.
    """

    def __init__(
        self,
        model: nn.Module,
        inventory: Inventory,
        selection: Selection,
        head: Sequence[str] = (),
        new: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.inventory = inventory
        self.selection = selection
        self.new = frozenset(new)
        self.traces = Traces({name: part.requires_grad for name, part in model.named_parameters()})
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.head = tuple(Bias(name, "head", None, tuple(parameters[name].shape)) for name in head)
        self._biases = tuple(bias for bias in selection.biases if not is_scale(bias.role))
        self._scales = tuple(bias for bias in selection.biases if is_scale(bias.role))
        self.injection = Injection(model, selection.inject)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._parameters = {entry.name: parameters[entry.name] for entry in (*selection.biases, *self.head)}
        # Parameters that share memory have a gradient each, and their sum is the memory's.
        sharing: dict[tuple[int, int], list[nn.Parameter]] = {}
        for parameter in {id(part): part for part in parameters.values()}.values():
            parameter.requires_grad_(False)
            sharing.setdefault(storage_of(parameter), []).append(parameter)
        self._sharing = {name: sharing[storage_of(part)] for name, part in self._parameters.items()}
        for parameter in chain.from_iterable(self._sharing.values()):
            parameter.requires_grad_(True)
        self.originals = {entry.key: entry.read(self._parameters[entry.name]) for entry in self.entries}
        self.master, self.scale_master = self._master(self._biases), self._master(self._scales)
        self.head_master = self._master(self.head) if self.head else None
        self._written = [self._current(entries) for entries, _ in self._blocks()]

    @property
    def entries(self) -> tuple[Bias, ...]:
        """All that is trained: the biases, the scales, then the head."""
        return (*self._biases, *self._scales, *self.head)

    @property
    def masters(self) -> list[nn.Parameter]:
        """What the optimizer works on: of the biases, the scales and the head, what is trained."""
        return [master for group in self.groups.values() for master in group]

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The masters by what they are, each with a learning rate of its own: `tuned`, `scales`, `head`."""
        return {
            "tuned": [self.master] if self._biases else [],
            "scales": [self.scale_master] if self._scales else [],
            "head": [] if self.head_master is None else [self.head_master],
        }

    @property
    def head_count(self) -> int:
        """Number of trained entries of the head."""
        return sum(entry.count for entry in self.head)

    def optimizer(
        self,
        factory: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
        *,
        head_lr: float | None = None,
        scale_lr: float | None = None,
        **arguments: Any,
    ) -> torch.optim.Optimizer:
        """An optimizer for any training loop: `loss.backward(); optimizer.step()`, or the `Trainer` of Transformers.

        Before each step it takes the model's gradients, after it writes the biases back; `zero_grad` clears both. Where
        the model's values were loaded from a checkpoint in between, they are what training goes on from. Weight decay
        is zero unless given: it would pull absolute biases to zero. Not for fp16 with a gradient scaler, which looks
        for scaled gradients here before they have arrived, and says that it found none.

        Args:
            factory: an optimizer class of torch's kind; not one that needs a closure.
            head_lr: learning rate of the head; that of the biases if left out.
            scale_lr: learning rate of scales; likewise.
            arguments: passed on, as `lr`.
        """
        rates = {"scales": scale_lr, "head": head_lr}
        groups = [
            {"params": masters, **({"lr": rate} if (rate := rates.get(name)) is not None else {})}
            for name, masters in self.groups.items()
            if masters
        ]
        decays = "weight_decay" in signature(factory).parameters
        made = factory(groups, **{**({"weight_decay": 0.0} if decays else {}), **arguments})

        def before(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if any(callable(value) for value in (*args, *kwargs.values())):
                raise BiaslineError("this optimizer takes no closure", "call backward() first, then step()")
            self.collect()

        def after(*_: Any) -> None:
            self.write()
            self._forget_gradients()

        def zero_grad(set_to_none: bool = True) -> None:
            self._forget_gradients()

        made.register_step_pre_hook(before)
        made.register_step_post_hook(after)
        made.zero_grad = zero_grad  # type: ignore[method-assign]  # a hook for it does not exist
        self._forget_gradients()
        self._mask_gradients()
        return made

    def _forget_gradients(self) -> None:
        for parameter in (*self.masters, *chain.from_iterable(self._sharing.values())):
            parameter.grad = None

    def _mask_gradients(self) -> None:
        """A loop that clips by the norm of the model's gradients must not see entries that are not trained."""
        self.traces.unhook()
        for name, parameter in self._parameters.items():
            parts = [entry for entry in self.selection.biases if entry.name == name and entry.cut is not None]
            if not parts:
                continue
            mask = torch.zeros_like(parameter, requires_grad=False)
            for part in parts:
                part.write(mask, torch.ones(part.count))
            for shared in self._sharing[name]:
                # torch gives this method no types
                hook = shared.register_hook(lambda gradient, mask=mask: gradient * mask.to(gradient))  # type: ignore[no-untyped-call]
                self.traces.hooks.append(hook)

    def to(self, device: torch.device) -> None:
        """Move the masters to where the model is."""
        for master in self.masters:
            master.data = master.data.to(device)
            master.grad = torch.zeros_like(master.data)

    def collect(self, add: bool = False) -> None:
        """Move the model's gradients into the masters' (fp32) and clear them.

        A parameter that had no part in the loss (its gradient is None) counts as zero.

        Args:
            add: to what the masters have, as after each of several backward passes of one step: a model in bf16 would
                lose small gradients in the sum.
        """
        if not add:
            self.read()
        for entries, master in self._blocks():
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            elif not add:
                master.grad.zero_()
            for entry, part in _split(entries, master.grad):
                for parameter in self._sharing[entry.name]:
                    if parameter.grad is not None:
                        part.add_(entry.read(parameter.grad).to(part))
        for parameter in chain.from_iterable(self._sharing.values()):
            parameter.grad = None

    def write(self) -> None:
        """Copy the masters into the model, cast to its dtype."""
        for place, (entries, master) in enumerate(self._blocks()):
            for entry, values in _split(entries, master.detach()):
                entry.write(self._parameters[entry.name], values)
            self._written[place] = self._current(entries)

    @torch.no_grad()
    def read(self) -> None:
        """Take into the masters what someone else put into the model since the last `write`: a checkpoint, say."""
        for place, (entries, master) in enumerate(self._blocks()):
            current, written = self._current(entries), self._written[place]
            if current.shape == written.shape and current.dtype == written.dtype:
                master.copy_(torch.where(current != written.to(current.device), current.float().to(master), master))

    def values(self) -> dict[str, torch.Tensor]:
        """Key → trained entries, fp32, on the CPU: what a delta stores. Parts of a bias are flat."""
        return {
            entry.key: values.to("cpu", copy=True).view(entry.shape if entry.cut is None else (-1,))
            for entries, master in self._blocks()
            for entry, values in _split(entries, master.detach())
        }

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the collected gradient per role."""
        squares: dict[str, float] = {}
        for entries, master in self._blocks():
            assert master.grad is not None
            for entry, values in _split(entries, master.grad):
                squares[entry.role] = squares.get(entry.role, 0.0) + float(values.square().sum())
        return {role: square**0.5 for role, square in squares.items()}

    def _current(self, entries: Sequence[Bias]) -> torch.Tensor:
        """What the model holds in these entries, flat."""
        values = [entry.read(self._parameters[entry.name]) for entry in entries]
        return torch.cat(values) if values else torch.zeros(0)

    def _master(self, entries: Sequence[Bias]) -> nn.Parameter:
        values = [self.originals[entry.key].float() for entry in entries]
        master = nn.Parameter(torch.cat(values) if values else torch.zeros(0))
        master.grad = torch.zeros_like(master)
        return master

    def _blocks(self) -> Iterator[tuple[Sequence[Bias], nn.Parameter]]:
        if self._biases:
            yield self._biases, self.master
        if self._scales:
            yield self._scales, self.scale_master
        if self.head_master is not None:
            yield self.head, self.head_master


def tune_biases(
    model: nn.Module,
    roles: str = "all",
    layers: str = "",
    pattern: str = "",
    *,
    inject: str = "",
    head: Head = "auto",
) -> BiasTuning:
    """Freeze `model` but for the chosen biases (see `select_biases`) and prepare them for training.

    Args:
        model: the base; changed in place.
        roles: which biases, see `select_biases`.
        layers: only those of some layers, likewise.
        pattern: only those of some names, likewise.
        inject: roles whose layers get a zero bias if they have none, likewise.
        head: names of the parameters of a new head, which is trained whole; or `auto`: what Transformers had to fill
            with random values (a head, a pooler) is trained whole, a head that was loaded stays frozen; `train`: an
            existing head is trained whole too; `keep`: it stays frozen, whatever is asked of the biases.

    Raises:
        BiaslineError: as `select_biases`; where a random head would stay frozen, or cannot be told from a trained one;
            where a delta is applied; for a model on the meta device.
    """
    model = _plain(model)
    inventory = inspect_biases(model)
    selection = select_biases(inventory, roles, layers, pattern, inject)
    new, trained = _head_policy(model, inventory, head)
    frozen = {entry.name for entry in inventory.head} if head == "keep" else set()
    kept = tuple(bias for bias in selection.biases if bias.name not in {*trained, *frozen})
    if not kept:
        raise BiaslineError(f"biases {roles!r}: nothing but the head, which is trained anyway", "choose 'all'")
    injected = {name: length for name, length in selection.inject.items() if any(bias.name == name for bias in kept)}
    return BiasTuning(model, inventory, Selection(kept, injected, selection.notes, selection.asked), trained, new)


def tune_head(model: nn.Module, head: Head = "auto") -> BiasTuning:
    """Freeze `model` but for its head: what a head alone can do, to compare biases with.

    Args:
        model: the base; changed in place.
        head: as for `tune_biases`.

    Raises:
        BiaslineError: as `tune_biases`, and where no head would be trained.
    """
    model = _plain(model)
    inventory = inspect_biases(model)
    new, trained = _head_policy(model, inventory, head)
    if not trained:
        raise BiaslineError(
            f"{inventory.model_type}: no head to train alone", "train biases, or train the base's head anew"
        )
    asked = {"roles": "", "layers": "", "pattern": "", "inject": ""}
    return BiasTuning(model, inventory, Selection((), {}, (), asked), trained, new)


def _plain(model: nn.Module) -> nn.Module:
    """The model itself, held to be a base that training can start from."""
    model = unwrapped(model)
    if applied_to(model) is not None:
        raise BiaslineError("a delta is applied to this model", "revert it first: training starts from the base")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise BiaslineError("a model on the meta device has no values to train", "load its weights")
    return model


def _head_policy(model: nn.Module, inventory: Inventory, head: Head) -> tuple[list[str], list[str]]:
    """Names of the new head's parameters, and of those that are trained."""
    existing = [entry.name for entry in inventory.head]
    random = _random_parameters(model, inventory)
    if not isinstance(head, str):
        known = {name for name, _ in model.named_parameters()}
        for name in head:
            if name not in known:
                raise BiaslineError(f"head: the model has no parameter {name}", "name its head's, weights and all")
        if left := [name for name in random or [] if name not in head]:
            raise BiaslineError(
                f"head: {left[0]} is not in the base's files either; it would stay at random values",
                "name it too, or say head='auto'",
            )
        return list(head), list(head)
    if head not in ("auto", "train", "keep"):
        raise BiaslineError(f"head {head!r}: expected auto, train, keep, or a list of parameter names")
    if random is None:
        if existing and head == "auto":
            raise BiaslineError(
                f"{inventory.model_type} has a head ({existing[0]}, …), and nothing tells whether it was ever trained",
                "say head='train' to train it whole, or head='keep' if it is good as it is",
            )
        random = []
    if head == "keep" and random:
        raise BiaslineError(
            f"head 'keep': {random[0]} is not in the base's files; it would stay at random values",
            "say head='auto': a new head is trained whole",
        )
    return random, [*random, *(name for name in existing if name not in random)] if head == "train" else random


def _random_parameters(model: nn.Module, inventory: Inventory) -> list[str] | None:
    """What Transformers did not find in the files, outside the base's body; None where it loaded nothing at all.

    It marks each parameter that it loads; what it initialises itself has no mark. In the body only a pooler may be
    missing: other parameters without a mark there were put in by someone else, such as enlarged embeddings.
    """
    loaded = {name for name, part in model.named_parameters() if getattr(part, "_is_hf_initialized", False)}
    if not loaded:
        return None
    role_of = architecture_of(inventory.model_type).role_of
    prefix = getattr(model, "base_model_prefix", "")
    body = f"{prefix}." if prefix and hasattr(model, prefix) else ""
    return [
        name
        for name, _ in model.named_parameters()
        if name not in loaded
        and (not name.startswith(body) or role_of(name.rpartition(".")[0])[0] in ("head", "pooler"))
    ]


def _split(entries: Sequence[Bias], vector: torch.Tensor) -> Iterator[tuple[Bias, torch.Tensor]]:
    """Each entry with its part of a flat vector, as a view."""
    yield from zip(entries, torch.split(vector, [entry.count for entry in entries]), strict=True)
