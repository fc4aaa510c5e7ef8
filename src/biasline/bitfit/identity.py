"""Whether a model is the base that a delta was trained on: hashes over samples of its own values."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from biasline.bitfit.inventory import Bias, value_hash

# How many entries of each frozen parameter tell one base from another.
_SAMPLE = 64
_DIGITS = 8
_LACKING = "(one that this model lacks)"


class Identity:
    """What a model's parameters are, asked for by many deltas and computed once.

    The biases alone do not tell one base from another: injected ones were all zero. A hash over all weights would take
    seconds for what must take milliseconds, so it is over 64 entries of each parameter, spread evenly; where files are
    at hand, the base's pin holds the whole.

    Args:
        model: a plain base; what is asked of it is what it was when first asked.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._names = [name for name, _ in model.named_parameters()]
        self._digests: dict[str, str] = {}
        self._values: dict[tuple[str, Bias], str] = {}

    def frozen(self, trained: Iterable[str]) -> str:
        """The hashes of all parameters but those of these names, in model order, joined."""
        return "".join(digest for _, digest in self._frozen(trained))

    def odd(self, places: Mapping[str, Bias], base: Mapping[str, str], frozen: str) -> str | None:
        """The first parameter whose values are not the base's, or None.

        Args:
            places: key → what a delta changes.
            base: those of these keys that the base has → the hash of its own values.
            frozen: what `frozen` gave in training.
        """
        for key, expected in base.items():
            if self._own(key, places[key]) != expected:
                return key
        found = self._frozen({place.name for place in places.values()})
        for number, (name, digest) in enumerate(found):
            if frozen[number * _DIGITS : (number + 1) * _DIGITS] != digest:
                return name
        return _LACKING if len(found) * _DIGITS != len(frozen) else None

    def _own(self, key: str, place: Bias) -> str:
        if (key, place) not in self._values:
            self._values[key, place] = value_hash(place.read(self._parameters[place.name]))
        return self._values[key, place]

    def _frozen(self, trained: Iterable[str]) -> list[tuple[str, str]]:
        if not self._digests:
            self._digests = dict(self._sampled())
        skipped = set(trained)
        return [(name, digest) for name, digest in self._digests.items() if name not in skipped]

    def _sampled(self) -> Iterable[tuple[str, str]]:
        """Each parameter with a hash over its name, its shape and some of its entries."""
        parts = [(name, self._parameters[name]) for name in self._names]
        parts = [(name, part) for name, part in parts if part.is_floating_point() and not part.is_meta]
        if not parts:
            return
        flat = [part.detach().reshape(-1) for _, part in parts]
        heads = [part[:: max(1, part.numel() // _SAMPLE)][:_SAMPLE].float() for part in flat]
        values = torch.cat(heads).cpu().numpy()
        offset = 0
        for (name, part), sample in zip(parts, heads, strict=True):
            digest = hashlib.sha256(f"{name} {tuple(part.shape)} ".encode())
            digest.update(values[offset : offset + len(sample)].tobytes())
            yield name, digest.hexdigest()[:_DIGITS]
            offset += len(sample)
