"""Forward passes in which each row of a batch has bias vectors of its own.

A linear layer takes the rows' biases as the addend of its matrix product, which costs no more than its own bias does;
added behind it, they would be read and written once more. Norms and outputs' scales are element-wise anyway. A layer of
any other kind is run once for each set of values.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from biasline.bitfit.inventory import is_norm, is_transposed
from biasline.errors import BiaslineError

Forward = Callable[..., Any]
OfKind = Callable[[int], AbstractContextManager[None]]


class NotRowsError(BiaslineError):
    """A layer was called on something that the batch's rows cannot be told apart in."""


@dataclass(frozen=True)
class Rows:
    """Which values each row of a batch has.

    Attributes:
        kinds: which of the kinds of values each row of the batch has, (rows,). One row alone stands for any number.
        lengths: tokens of each row, where they are packed one behind the other; else empty.
        batch: first dimension of what the model is called on: the rows, or so many of each, as beams are.
        flat: first dimensions that a layer's input of two dimensions may have: the batch, or all of its tokens.
    """

    kinds: torch.Tensor
    lengths: tuple[int, ...] = ()
    batch: int = 0
    flat: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.kinds)

    def called(self, args: Sequence[Any], kwargs: Mapping[str, Any], path: str) -> "Rows":
        """The same, knowing what a call of the whole model looks like.

        Raises:
            NotRowsError: where nothing that it is called on is made of the rows.
        """
        if len(self) == 1 or self.lengths:
            return self
        given = [part for part in (*args, *kwargs.values()) if isinstance(part, torch.Tensor) and part.ndim > 1]
        batch = next((len(part) for part in given if len(part) and len(part) % len(self) == 0), 0)
        if not batch:
            shapes = ", ".join(str(tuple(part.shape)) for part in given) or "no tensor"
            raise NotRowsError(f"{path}: called on {shapes}, which are not {len(self)} rows")
        tokens = {part.shape[0] * part.shape[1] for part in given if len(part) == batch}
        return replace(self, batch=batch, flat=frozenset({batch} | tokens))

    def holds(self, shape: torch.Size) -> bool:
        """Whether an input of this shape is made of the rows."""
        first = shape[0] if len(shape) > 1 else 1
        if len(self) == 1:
            return True
        if not self.batch:  # an encoder that is called by itself
            return first == len(self) or (len(shape) == 2 and first % len(self) == 0)
        return first in self.flat if len(shape) == 2 else first == self.batch

    def taken(self, values: torch.Tensor) -> torch.Tensor:
        """The rows' values, (rows, …), of those of each kind, (kinds, …), which are in order of their first row."""
        return values if len(values) == len(self.kinds) else values.index_select(0, self.kinds)


class Spread:
    """Rows' vectors laid out along what a layer is called on.

    Args:
        rows: the batch's rows.
        inputs: the layer's input, (rows × n, …, features), or (1, tokens, features) of packed rows.

    Raises:
        NotRowsError: where the first dimension is not made of the rows.
    """

    def __init__(self, rows: Rows, inputs: torch.Tensor, path: str) -> None:
        self.alone = len(rows) == 1
        self.dims = inputs.ndim
        self.tokens: torch.Tensor | None = None
        first = inputs.shape[0] if self.dims > 1 else 1
        if rows.lengths and not self.alone:
            count = sum(rows.lengths)
            if inputs.shape[:-1].numel() != count:
                raise NotRowsError(f"{path}: called on {tuple(inputs.shape)}, the packed rows have {count} tokens")
            numbers = torch.arange(len(rows), device=inputs.device)
            self.tokens = numbers.repeat_interleave(torch.tensor(rows.lengths, device=inputs.device))
        elif not rows.holds(inputs.shape):
            raise NotRowsError(f"{path}: called on {tuple(inputs.shape)}, which are not {len(rows)} rows")
        self.each = first // len(rows)

    def vectors(self, values: torch.Tensor) -> torch.Tensor:
        """Values per row, (rows, features), so that they broadcast along the input."""
        if self.tokens is not None:
            return values[self.tokens].view(*[1] * (self.dims - 2), -1, values.shape[-1])
        if self.each > 1:
            values = values.repeat_interleave(self.each, 0)
        return values.view(-1, *[1] * (self.dims - 2), values.shape[-1]) if self.dims > 1 else values[0]


class _Product(torch.autograd.Function):
    """A matrix product whose addend is a row's own vector.

    Shapes: inputs (tokens, features), weight (features, outputs), values (rows, outputs); the row of each token, or
    None where each row has as many tokens, one behind the other.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, values: torch.Tensor, tokens: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(inputs if ctx.needs_input_grad[1] else None, weight, tokens)
        ctx.rows = len(values)
        if tokens is None:
            made = inputs.new_empty(len(values), len(inputs) // len(values), values.shape[1])
            made.copy_(values[:, None])
            made = made.view(-1, values.shape[1])
        else:
            made = values.index_select(0, tokens)
        return made.addmm_(inputs, weight)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        given, weight, tokens = ctx.saved_tensors
        inputs = gradient @ weight.t() if ctx.needs_input_grad[0] else None
        matrix = given.t() @ gradient if ctx.needs_input_grad[1] else None
        values = None
        if ctx.needs_input_grad[2]:
            if tokens is None:
                values = gradient.reshape(ctx.rows, -1, gradient.shape[-1]).sum(1)
            else:
                values = gradient.new_zeros(ctx.rows, gradient.shape[-1]).index_add_(0, tokens, gradient)
        return inputs, matrix, values, None


@dataclass(frozen=True)
class Layer:
    """A layer some of whose parameters differ from row to row.

    Attributes:
        path: where it is in the model.
        module: the layer.
        own: its forward pass of before.
        values: attribute (`bias`, `weight`, `scale`) → its values, (kinds, …).
        sizes: how many of the outputs each kind has, (kinds,), where they differ; else None.
        additive: of a linear layer, whether its bias is what it adds at last.
    """

    path: str
    module: nn.Module
    own: Forward
    values: Mapping[str, torch.Tensor]
    sizes: torch.Tensor | None = None
    additive: bool = True

    def forward(self, rows: Rows, of_kind: OfKind, *args: Any, **kwargs: Any) -> Any:
        """What the layer makes of its input.

        Args:
            rows: of the batch.
            of_kind: makes all that is called inside of it be of one kind of rows.
            args: of the call.
            kwargs: likewise.
        """
        inputs = args[0] if args else next(iter(kwargs.values()))
        known = {name: values.to(self._dtype(name, inputs)) for name, values in self.values.items()}
        if len(args) + len(kwargs) > 1 or not self._known:
            return self._apart(rows, of_kind, known, args, kwargs)
        spread = Spread(rows, inputs, self.path)
        taken = {name: rows.taken(values) for name, values in known.items()}
        made = self._matrix(rows, spread, taken, inputs) if self._linear else self._norm(spread, taken, inputs)
        if "scale" in taken:
            # What it differs from one by, first: a scale near one would be rounded to one.
            made = torch.addcmul(made, made, spread.vectors((taken["scale"] - 1).to(made.dtype)))
        if self.sizes is not None:
            sizes = rows.taken(self.sizes)[:, None]
            beyond = spread.vectors(torch.arange(made.shape[-1], device=made.device) >= sizes)
            made = made.masked_fill(beyond, torch.finfo(made.dtype).min)
        return made

    @property
    def _linear(self) -> bool:
        return isinstance(self.module, nn.Linear) or is_transposed(self.module)

    @property
    def _known(self) -> bool:
        """Whether it is a layer whose computation is written here: linear, or a norm that is its scale times something.

        Norms of other families of models are; of torch's own only two are made of one row alone.
        """
        if self._linear:
            return self.additive or not {"bias", "weight"} & set(self.values)
        own = type(self.module).__module__.startswith("torch.")
        return is_norm(self.module) and (not own or isinstance(self.module, nn.LayerNorm | nn.RMSNorm))

    @property
    def _plain(self) -> bool:
        """Whether the forward pass is the product with a matrix of floating-point numbers, and nothing around it."""
        known = type(self.module).forward is nn.Linear.forward or is_transposed(self.module)
        unchanged = getattr(self.own, "__func__", None) is type(self.module).forward
        return known and unchanged and self.module.get_parameter("weight").is_floating_point()

    def _dtype(self, name: str, inputs: torch.Tensor) -> torch.dtype:
        """What values are cast to: the parameter's own dtype, or that of the layer's weight; scales stay fp32."""
        if name == "scale":
            return torch.float32
        for other in (name, "weight"):
            part = getattr(self.module, other, None)
            if isinstance(part, torch.Tensor) and part.is_floating_point():
                return part.dtype
        return inputs.dtype

    def _matrix(
        self, rows: Rows, spread: Spread, taken: Mapping[str, torch.Tensor], inputs: torch.Tensor
    ) -> torch.Tensor:
        own = getattr(self.module, "bias", None)
        bias = taken.get("bias")
        if "weight" in taken:
            return self._matrices(rows, taken["weight"], own if bias is None else bias, inputs)
        made: torch.Tensor
        if bias is None:
            made = self.own(inputs)
            return made
        if not self._plain or torch.is_autocast_enabled(inputs.device.type):
            # GPT-2's own kind of layer cannot do without one.
            none = torch.zeros_like(bias[0]) if is_transposed(self.module) else None
            with _shadowed(self.module, {"bias": none}):
                made = self.own(inputs)
            return made + spread.vectors(bias).to(made.dtype)
        weight: torch.Tensor = self.module.get_parameter("weight")
        if not is_transposed(self.module):
            weight = weight.t()
        made = _Product.apply(inputs.reshape(-1, inputs.shape[-1]), weight, bias, spread.tokens)  # type: ignore[no-untyped-call]
        return made.view(*inputs.shape[:-1], made.shape[-1])

    def _matrices(
        self, rows: Rows, weight: torch.Tensor, bias: torch.Tensor | None, inputs: torch.Tensor
    ) -> torch.Tensor:
        """Each row through a matrix of its own, as a head is."""
        transposed = is_transposed(self.module)
        if rows.lengths:
            parts = torch.split(inputs.reshape(-1, inputs.shape[-1]), list(rows.lengths))
            chosen = [bias[number] if bias is not None and bias.ndim > 1 else bias for number in range(len(rows))]
            each = [
                functional.linear(part, matrix.t() if transposed else matrix, own)
                for part, matrix, own in zip(parts, weight, chosen, strict=True)
            ]
            return torch.cat(each).view(*inputs.shape[:-1], -1)
        flat = inputs.reshape(len(rows), inputs.shape[:-1].numel() // len(rows), inputs.shape[-1])
        made = flat @ (weight if transposed else weight.transpose(1, 2))
        if bias is not None:
            made = made + (bias[:, None] if bias.ndim > 1 else bias)
        return made.view(*inputs.shape[:-1], made.shape[-1])

    def _norm(self, spread: Spread, taken: Mapping[str, torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
        vectors = {name: spread.vectors(values) for name, values in taken.items() if name != "scale"}
        module = self.module
        if type(module).forward is nn.LayerNorm.forward:
            own = {name: getattr(module, name) for name in ("weight", "bias")}
            weight = vectors.get("weight", own["weight"])
            bias = vectors.get("bias", own["bias"])
            fused = weight if "weight" not in vectors else None
            made = functional.layer_norm(inputs, module.normalized_shape, fused, None, module.eps)  # type: ignore[arg-type]
            if "weight" in vectors:
                return made * weight if bias is None else torch.addcmul(bias.to(made), made, weight)
            return made if bias is None else made + bias
        if isinstance(module, nn.RMSNorm) and "weight" in vectors:
            made = functional.rms_norm(inputs, list(module.normalized_shape), None, module.eps) * vectors.pop("weight")
            return made + vectors["bias"] if vectors else made
        # A norm that does not know biases takes them behind it.
        injected = vectors.pop("bias", None) if getattr(module, "bias", None) is None else None
        with _shadowed(module, vectors):
            made = self.own(inputs)
            assert isinstance(made, torch.Tensor)
        return made if injected is None else made + injected.to(made.dtype)

    def _apart(
        self,
        rows: Rows,
        of_kind: OfKind,
        known: Mapping[str, torch.Tensor],
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Each kind of row by itself."""
        if self.sizes is not None or "scale" in known or rows.lengths:
            raise BiaslineError(f"{self.path}: a {type(self.module).__name__} takes no rows of this kind")

        def made(kind: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            with _shadowed(self.module, {name: values[kind] for name, values in known.items()}), of_kind(kind):
                return self.own(*args, **kwargs)

        return by_kind(rows, made, args, kwargs, self.path)


def by_kind(
    rows: Rows, made: Callable[[int, Sequence[Any], Mapping[str, Any]], Any], args: Any, kwargs: Any, path: str
) -> Any:
    """Rows of each kind in a call of their own, and the results in the rows' order.

    Args:
        rows: of the batch.
        made: makes something of a kind's rows, given as the arguments of a call.
        args: of the whole call; tensors whose first dimension is made of the rows are split.
        kwargs: likewise.
        path: what is called.

    Raises:
        NotRowsError: where arguments or results cannot be told apart by row.
    """
    kinds = sorted(set(rows.kinds.tolist()))
    if len(kinds) == 1:
        return made(kinds[0], args, kwargs)
    if not rows.batch:
        rows = rows.called(args, kwargs, path)
    order, parts = [], []
    for kind in kinds:
        chosen = (rows.kinds == kind).nonzero().flatten()
        order.append(chosen)
        parts.append(
            made(
                kind,
                [_part(value, chosen, rows, path) for value in args],
                {name: _part(value, chosen, rows, path) for name, value in kwargs.items()},
            )
        )
    back = torch.cat(order).argsort()
    return _joined(parts, back, rows, path)


def _part(value: Any, chosen: torch.Tensor, rows: Rows, path: str) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        if rows.holds(value.shape) or (value.ndim == 1 and len(value) == rows.batch):
            each = value.shape[0] // len(rows)
            places = chosen.to(value.device)[:, None] * each + torch.arange(each, device=value.device)
            return value[places.flatten()]
        if value.ndim and value.shape[0] == 1:
            return value
    raise NotRowsError(
        f"{path}: its rows cannot be run apart, as this model needs: {type(value).__name__}",
        "give it a batch whose rows are all of one slot",
    )


def _joined(parts: Sequence[Any], back: torch.Tensor, rows: Rows, path: str) -> Any:
    first = parts[0]
    if isinstance(first, torch.Tensor):
        if first.ndim and sum(len(part) for part in parts) in {rows.batch, *rows.flat}:
            whole = torch.cat(list(parts))
            each = len(whole) // len(rows)
            return whole.view(len(rows), each, *whole.shape[1:])[back.to(whole.device)].view(whole.shape)
    elif first is None:
        return None
    elif isinstance(first, Mapping):
        joined = {name: _joined([part[name] for part in parts], back, rows, path) for name in first}
        return type(first)(**joined)  # Transformers' outputs are mappings that are made so
    elif isinstance(first, tuple | list):
        return type(first)(_joined(list(part), back, rows, path) for part in zip(*parts, strict=True))
    raise NotRowsError(
        f"{path}: what it gives for some rows cannot be joined with that for others: {type(first).__name__}",
        "compute losses from the logits, and give a batch whose rows are all of one slot where a cache is used",
    )


@torch.no_grad()
def adds_its_bias(module: nn.Module) -> bool:
    """Whether a linear layer's bias is what it adds at last; a forward pass of someone's own is tried out."""
    if type(module).forward is nn.Linear.forward or is_transposed(module):
        return True
    if not isinstance(module, nn.Linear):
        return False
    module = copy.copy(module)  # another thread may be in it
    vars(module).pop("forward", None)
    weight = module.weight
    dtype = weight.dtype if weight.is_floating_point() else torch.float32
    inputs = torch.linspace(-1, 1, module.in_features, device=weight.device, dtype=dtype)[None]
    bias = torch.linspace(1, 2, module.out_features, device=weight.device, dtype=dtype)
    try:
        with _shadowed(module, {"bias": bias}):
            added = module(inputs)
        with _shadowed(module, {"bias": None}):
            return torch.allclose(added, module(inputs) + bias, rtol=1e-2, atol=1e-2)
    except Exception:  # whatever a layer of someone else's does without a bias
        return False


@contextmanager
def _shadowed(module: nn.Module, values: Mapping[str, torch.Tensor | None]) -> Iterator[None]:
    """Other values in the places of a module's parameters, which stay: an instance's own attributes come first."""
    places = [(vars(module.get_submodule(path)), name) for path, _, name in (key.rpartition(".") for key in values)]
    before = [(place, name, place[name]) for place, name in places if name in place]
    try:
        for (place, name), value in zip(places, values.values(), strict=True):
            place[name] = value
        yield
    finally:
        for place, name in places:
            place.pop(name, None)
        for place, name, value in before:
            place[name] = value
