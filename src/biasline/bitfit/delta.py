"""The delta: trained bias values with a manifest, applied to and taken off a model bit by bit.

Stored are the trained values, not differences: `b + (t - b)` is not `t` in floating point.
"""

import json
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from biasline.bitfit.inventory import Bias, inspect_biases, value_hash
from biasline.bitfit.tuning import BiasTuning
from biasline.errors import BiaslineError, shown

FORMAT_VERSION = 1

# The delta that is applied to a model, and the values that it displaced; gone with the model.
_originals: "weakref.WeakKeyDictionary[nn.Module, tuple[BiasDelta, dict[str, torch.Tensor]]]" = (
    weakref.WeakKeyDictionary()
)


class Manifest(BaseModel):
    """What a delta is made of and belongs to; travels in the metadata of the safetensors file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    base: dict[str, str] = {}  # name and digest of the base's pin
    model_type: str
    selection: dict[str, str]  # roles, layers, pattern as asked
    base_values: dict[str, str]  # tensor → hash of the base's own values there
    values: dict[str, str]  # tensor → hash of the trained values
    head: list[str] = []  # tensors of a new head, stored whole; the base has no values of its own there
    labels: list[str] = []  # label names in the order of a classification head's outputs
    about: dict[str, str] = {}  # template, tokenizer, data, fingerprint: whatever names the origin


class BiasDelta:
    """Trained biases of one task, apart from the base they were trained on.

    Args:
        tensors: key (see `Bias.key`) → trained entries, fp32, flat.
        manifest: what they belong to.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], manifest: Manifest) -> None:
        self.tensors = dict(tensors)
        self.manifest = manifest

    @classmethod
    def of(
        cls,
        tuning: BiasTuning,
        base: Mapping[str, str] | None = None,
        about: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
    ) -> "BiasDelta":
        """The delta of a finished training.

        Args:
            base: `name` and `digest` of the base's pin, where there is one.
            about: whatever names the origin: template, tokenizer, data, fingerprint.
            labels: label names in the order of the head's outputs, for a classification.
        """
        tensors = tuning.values()
        manifest = Manifest(
            base=dict(base or {}),
            model_type=tuning.inventory.model_type,
            selection=tuning.selection.asked,
            base_values=tuning.base_values,
            values={key: value_hash(values) for key, values in tensors.items()},
            head=[entry.key for entry in tuning.head],
            labels=list(labels),
            about=dict(about or {}),
        )
        return cls(tensors, manifest)

    def save(self, path: Path) -> None:
        """Write one safetensors file; equal deltas give equal bytes."""
        metadata = {"biasline": self.manifest.model_dump_json()}
        save_file({key: self.tensors[key].contiguous() for key in sorted(self.tensors)}, path, metadata)

    @classmethod
    def load(cls, path: Path | str) -> "BiasDelta":
        """Read and check a delta.

        Errors: `BiaslineError` for a file that is missing, truncated, tampered with (naming the tensor), without a
        manifest, or of an unknown format version.
        """
        path = Path(path)
        if not path.is_file():
            raise BiaslineError(f"{shown(path)}: no delta there", "train the task first: `dvc repro`")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise BiaslineError(f"{shown(path)}: damaged: {error}", "restore it: `dvc checkout`") from None
        if "biasline" not in metadata:
            raise BiaslineError(f"{shown(path)}: no Biasline delta: its metadata has no manifest")
        raw = json.loads(metadata["biasline"])
        if raw.get("format_version") != FORMAT_VERSION:
            raise BiaslineError(
                f"{shown(path)}: format version {raw.get('format_version')}; this Biasline reads {FORMAT_VERSION}",
                "install the Biasline that wrote it",
            )
        try:
            manifest = Manifest.model_validate(raw)
        except ValidationError as error:
            raise BiaslineError(f"{shown(path)}: bad manifest: {error.errors()[0]['msg']}") from None
        _refuse_difference(shown(path), "tensor", set(manifest.values), set(tensors))
        _refuse_difference(shown(path), "hash of", set(tensors), {*manifest.base_values, *manifest.head})
        for key, values in tensors.items():
            if values.dtype != torch.float32 or value_hash(values) != manifest.values[key]:
                raise BiaslineError(
                    f"{shown(path)}: tensor {key}: its values are not those that were saved", "restore the file"
                )
        return cls(tensors, manifest)

    def apply(self, model: nn.Module) -> None:
        """Put the trained biases into `model` in place; the displaced values are kept for `revert`.

        Errors: `BiaslineError` where a delta is applied already, a tensor does not fit, or the model's own values are
        not those of the base that the delta was trained on.
        """
        if model in _originals:
            raise BiaslineError("a delta is applied to this model already", "revert it first")
        parameters = dict(model.named_parameters(remove_duplicate=False))
        places = self._places(model)
        originals = {key: bias.read(parameters[bias.name]) for key, bias in places.items()}
        for key, values in originals.items():
            if key not in self.manifest.head and value_hash(values) != self.manifest.base_values[key]:
                raise BiaslineError(
                    f"tensor {key}: this model's values are not those of the base that the delta was trained on",
                    f"load the base {self.manifest.base.get('name', '')} named in the delta's manifest",
                )
        for key, bias in places.items():
            bias.write(parameters[bias.name], self.tensors[key])
        _originals[model] = (self, originals)

    def revert(self, model: nn.Module) -> None:
        """Put the base's own values back, bit by bit."""
        if model not in _originals:
            raise BiaslineError("no delta is applied to this model")
        owner, originals = _originals[model]
        if owner is not self:
            raise BiaslineError("another delta is applied to this model", "revert that one")
        del _originals[model]
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for key, bias in self._places(model).items():
            bias.write(parameters[bias.name], originals[key])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with this delta inside the block, and as it was after it."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def merge(self, model: nn.Module) -> None:
        """Apply for good: the originals are not kept, `model` can be saved as a model of its own."""
        self.apply(model)
        del _originals[model]

    def change(self, model: nn.Module) -> list[tuple[Bias, torch.Tensor]]:
        """Trained minus base values per bias (not of a new head), flat fp32; `model` must be the plain base."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        return [
            (bias, self.tensors[key] - bias.read(parameters[bias.name]).float().cpu())
            for key, bias in self._places(model).items()
            if key not in self.manifest.head
        ]

    def _places(self, model: nn.Module) -> dict[str, Bias]:
        inventory = inspect_biases(model)
        known = inventory.named()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in self.manifest.head:
            if name in parameters:
                known[name] = Bias(name, "head", None, tuple(parameters[name].shape))
        whole = {bias.name for bias in inventory.biases}
        places = {}
        for key, values in self.tensors.items():
            if key not in known:
                found = "the model has no such bias" if key.split("#")[0] not in whole else "it is not cut like this"
                raise BiaslineError(f"tensor {key}: {found} ({inventory.model_type})", "apply it to its own base")
            if values.numel() != known[key].count:
                raise BiaslineError(
                    f"tensor {key}: {values.numel()} entries, the model has {known[key].count}",
                    "apply it to its own base",
                )
            places[key] = known[key]
        return places


def _refuse_difference(where: str, what: str, expected: set[str], found: set[str]) -> None:
    for word, names in (("missing", expected - found), ("not in the manifest", found - expected)):
        if names:
            raise BiaslineError(f"{where}: {what} {sorted(names)[0]}: {word}", "restore the file")
