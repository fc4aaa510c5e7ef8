"""The delta: trained biases (and scales) with a manifest, applied to and taken off a model bit by bit.

Stored are the trained values, not differences: `b + (t - b)` is not `t` in floating point.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from biasline.bitfit.applied import Applied, Traces, applied_to, set_applied
from biasline.bitfit.identity import Identity
from biasline.bitfit.injection import Injection
from biasline.bitfit.inventory import Bias, is_transposed, storage_of, unwrapped, value_hash
from biasline.bitfit.roles import Cut, is_scale
from biasline.bitfit.stock import stock_form
from biasline.bitfit.tuning import BiasTuning
from biasline.errors import BiaslineError, first_line, shown

FORMAT_VERSION = 2


class Entry(BaseModel):
    """One stored tensor: which entries of which parameter, and what they were before training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    shape: tuple[int, ...]  # of the whole parameter
    values: str  # hash of the trained values
    base: str = ""  # hash of the base's own values; empty where it has none (a new head, an injected bias)
    layer: int | None = None
    cut: tuple[int, int, int, int] | None = None  # start, width, stride, repeats: the entries of a fused bias
    injected: bool = False

    def place(self, key: str) -> Bias:
        """The entry as a bias of a model, found by its key."""
        return Bias(key.partition("#")[0], self.role, self.layer, self.shape, Cut(*self.cut) if self.cut else None)


class Manifest(BaseModel):
    """What a delta is made of and belongs to; travels in the metadata of the safetensors file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: dict[str, str] = {}  # name and digest of the base's pin
    model_type: str
    dtype: str  # of the base in training
    selection: dict[str, str]  # roles, layers, pattern, inject as asked
    tensors: dict[str, Entry]
    frozen: str  # hashes of samples of the frozen parameters, in model order, joined
    labels: list[str] = []  # label names in the order of a classification head's outputs
    score: dict[str, float] = {}  # mean and std that a regression's output is in units of
    about: dict[str, str] = {}  # tokenizer, template, data, fingerprint: whatever names the origin

    @property
    def head(self) -> list[str]:
        """Parameters of the trained head."""
        return [key for key, entry in self.tensors.items() if entry.role == "head"]


@dataclass(frozen=True)
class Difference:
    """How far two deltas are apart in one tensor: Euclidean norms of the trained values' difference and of both.

    A tensor that one of them lacks counts as zero there (a scale as one); one that has another shape in each comes
    twice, once for each.
    """

    key: str
    role: str
    layer: int | None
    distance: float
    norms: tuple[float, float]


class BiasDelta:
    """Trained biases of one task, apart from the base they were trained on.

    Args:
        tensors: key (see `Bias.key`) → trained values, fp32; parts of a fused bias are flat.
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
        score: Mapping[str, float] | None = None,
        frozen: str = "",
    ) -> "BiasDelta":
        """The delta of a finished training. The model has it applied: `revert` gives the base back.

        Args:
            tuning: what was trained.
            base: `name` and `digest` of the base's pin, where there is one.
            about: whatever names the origin: template, tokenizer, data, fingerprint.
            labels: label names in the order of the head's outputs, for a classification.
            score: for a regression, `mean` and `std`: the score is mean + std × the head's output.
            frozen: `frozen_hashes` of the tuning, where they were taken before the frozen parameters were spread over
                several processes; no process could take them alone afterwards.
        """
        model = tuning.model
        tuning.read()
        tuning.write()
        tensors = tuning.values()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for place in tuning.entries:
            if parameters[place.name].dtype != tuning.originals[place.key].dtype:
                raise BiaslineError(
                    f"tensor {place.key}: the model was cast after training began", "cast it before tune_biases"
                )
        own = {key for key in tuning.originals if key.partition("#")[0] not in tuning.injection.names}
        entries = {
            place.key: Entry(
                role=place.role,
                shape=place.shape,
                values=value_hash(tensors[place.key]),
                base=value_hash(tuning.originals[place.key]) if place.key in own - tuning.new else "",
                layer=place.layer,
                cut=(place.cut.start, place.cut.width, place.cut.stride, place.cut.repeats) if place.cut else None,
                injected=place.key not in own,
            )
            for place in tuning.entries
        }
        manifest = Manifest(
            base=dict(base or {}),
            model_type=tuning.inventory.model_type,
            dtype=_dtype(model),
            selection=tuning.selection.asked,
            tensors=entries,
            frozen=frozen or frozen_hashes(tuning),
            labels=list(labels),
            score=dict(score or {}),
            about=dict(about or {}),
        )
        delta = cls(tensors, manifest)
        set_applied(model, Applied(delta, dict(tuning.originals), tuning.injection, tuning.traces))
        return delta

    @property
    def injected(self) -> dict[str, int]:
        """Names of the biases and scales that the base does not have, with their lengths."""
        places = self.places().items()
        return {place.name: place.shape[0] for key, place in places if self.manifest.tensors[key].injected}

    def without_values(self) -> "BiasDelta":
        """What it belongs to and what its outputs are, without any tensor: for whoever has these elsewhere."""
        return BiasDelta({}, self.manifest.model_copy(update={"tensors": {}}))

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; equal deltas give equal bytes.

        Raises:
            BiaslineError: for values that are not finite, and for a place that cannot be written.
        """
        _refuse_odd_values("the delta", self.tensors)
        manifest = self.manifest.model_dump(exclude_defaults=True)
        text = json.dumps({"format_version": FORMAT_VERSION, "sha256": _sha256(manifest), "manifest": manifest})
        # One key: safetensors writes several in an order of its own, another each time.
        values = {key: self.tensors[key].contiguous() for key in sorted(self.tensors)}
        try:
            save_file(values, path, {"biasline": text})
        except (OSError, SafetensorError) as error:
            raise BiaslineError(f"{shown(Path(path))}: cannot be written: {first_line(error)}") from None

    @classmethod
    def load(cls, path: Path | str) -> "BiasDelta":
        """Read and check a delta.

        Raises:
            BiaslineError: for a file that is missing, truncated, tampered with (naming the tensor), without a manifest,
                or of an unknown format version.
        """
        path = Path(path)
        if not path.is_file():
            raise BiaslineError(f"{shown(path)}: no delta there", "train first; in a project: `dvc repro`")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise BiaslineError(f"{shown(path)}: damaged: {error}", "restore it: `dvc checkout`") from None
        manifest = _read_manifest(shown(path), metadata)
        for word, names in (
            ("missing", manifest.tensors.keys() - tensors.keys()),
            ("not in the manifest", tensors.keys() - manifest.tensors.keys()),
        ):
            if names:
                raise BiaslineError(f"{shown(path)}: tensor {min(names)}: {word}", "restore the file")
        for key, values in tensors.items():
            entry = manifest.tensors[key]
            place = entry.place(key)
            shape = place.shape if place.cut is None else (place.count,)
            if place.cut is not None and not place.cut.fits(torch.Size(place.shape).numel()):
                raise BiaslineError(f"{shown(path)}: tensor {key}: its cut lies outside of it", "restore the file")
            if tuple(values.shape) != shape or place.key != key:
                raise BiaslineError(
                    f"{shown(path)}: tensor {key}: shape {tuple(values.shape)}, its manifest says {shape}",
                    "restore the file",
                )
            if values.dtype != torch.float32 or value_hash(values) != entry.values:
                raise BiaslineError(
                    f"{shown(path)}: tensor {key}: its values are not those that were saved", "restore the file"
                )
        _refuse_odd_values(shown(path), tensors)
        return cls(tensors, manifest)

    def apply(self, model: nn.Module) -> None:
        """Put the trained biases into `model` in place; the displaced values are kept for `revert`.

        Raises:
            BiaslineError: where a delta is applied already, a tensor does not fit, or the model's own values are not
                those of the base that the delta was trained on. The model is then left as it was.
        """
        model = unwrapped(model)
        if applied_to(model) is not None:
            raise BiaslineError("a delta is applied to this model already", "revert it first")
        injection = Injection(model, self.injected)
        originals: dict[str, torch.Tensor] = {}
        try:
            places = self._checked_places(model)
            parameters = dict(model.named_parameters(remove_duplicate=False))
            with torch.inference_mode(False):
                originals = {key: place.read(parameters[place.name]) for key, place in places.items()}
                set_applied(model, Applied(self, originals, injection, Traces()))
                for key, place in places.items():
                    place.write(parameters[place.name], self.tensors[key])
        except BaseException:
            if applied_to(model) is not None:
                self.revert(model)
            else:
                injection.remove(model)
            raise

    def revert(self, model: nn.Module) -> None:
        """Put the base's own values back, bit by bit; injected biases go."""
        model = unwrapped(model)
        applied = applied_to(model)
        if applied is None:
            raise BiaslineError("no delta is applied to this model")
        if applied.delta is not self:
            raise BiaslineError("another delta is applied to this model", "revert that one")
        parameters = dict(model.named_parameters(remove_duplicate=False))
        with torch.inference_mode(False):
            for key, place in self.places().items():
                place.write(parameters[place.name], applied.originals[key])
        applied.traces.remove(model)
        applied.injection.remove(model)
        set_applied(model, None)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """The model with this delta inside the block, and as it was after it."""
        self.apply(model)
        try:
            yield model
        finally:
            self.revert(model)

    def merge(self, model: nn.Module) -> nn.Module:
        """Apply for good: a model of its own, which stock Transformers saves and reloads with its biases.

        Args:
            model: the plain base.

        Returns:
            `model`, changed in place; the outputs' scales are in its weights and biases. Where biases were injected,
            its config says so; if its type has no place for them but another type does the same computation with
            biases, a model of that type, sharing the tensors.

        Raises:
            BiaslineError: as `apply`; naming the first bias that no stock model has a place for, and the first scale
                whose weight is not the layer's own or no floating-point matrix. The model is then left as it was.
        """
        model = unwrapped(model)
        scales = {name: length for name, length in self.injected.items() if name.endswith(".scale")}
        injected = [name for name in self.injected if name not in scales]
        finish = stock_form(model, injected) if injected and applied_to(model) is None else None
        self.apply(model)
        injection = cast(Applied, applied_to(model)).injection
        try:
            values = {name: _foldable_scale(model, name) for name in scales}
            injection.remove(model, scales)
            merged = finish() if finish else model
        except BaseException:
            injection.add(model, {name: length for name, length in scales.items() if name not in injection.names})
            self.revert(model)
            raise
        for name, value in values.items():
            _fold_scale(merged, name, value)
        set_applied(model, None)
        return merged

    def change(self, model: nn.Module) -> list[tuple[Bias, torch.Tensor]]:
        """Trained minus base values per bias (not of a head), flat fp32; `model` must be the plain base."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        found = []
        for key, place in self.places().items():
            if place.role != "head":
                base = place.read(parameters[place.name]).float().cpu() if place.name in parameters else _plain(place)
                found.append((place, self.tensors[key].flatten() - base))
        return found

    def diff(self, other: "BiasDelta") -> list[Difference]:
        """How far two deltas of one base are apart, tensor by tensor; what only one of them trains comes whole.

        Raises:
            BiaslineError: where they belong to different bases.
        """
        if (self.manifest.base, self.manifest.model_type) != (other.manifest.base, other.manifest.model_type):
            names = [one.manifest.base.get("name", one.manifest.model_type) for one in (self, other)]
            raise BiaslineError(f"deltas of different bases: {names[0]} and {names[1]}", "compare two of one base")
        told = []
        for key in [*self.tensors, *(key for key in other.tensors if key not in self.tensors)]:
            entry = (self.manifest.tensors.get(key) or other.manifest.tensors[key]).place(key)
            known = self.tensors[key] if key in self.tensors else other.tensors[key]
            plain = torch.full_like(known, float(is_scale(entry.role)))
            one, two = self.tensors.get(key, plain), other.tensors.get(key, plain)
            pairs = [(one, two)]
            if key in self.tensors and key in other.tensors and not self._same_place(other, key):
                # Heads of different tasks, or parts of one bias that were cut otherwise: nothing to subtract.
                pairs = [(one, torch.zeros_like(one)), (torch.zeros_like(two), two)]
            for left, right in pairs:
                norms = (float(left.norm()), float(right.norm()))
                told.append(Difference(key, entry.role, entry.layer, float((left - right).norm()), norms))
        return told

    def _same_place(self, other: "BiasDelta", key: str) -> bool:
        one, two = self.manifest.tensors[key], other.manifest.tensors[key]
        return (one.shape, one.cut) == (two.shape, two.cut)

    def places(self) -> dict[str, Bias]:
        """Key → the entries of the model that it goes to."""
        return {key: self.manifest.tensors[key].place(key) for key in self.tensors}

    def _checked_places(self, model: nn.Module) -> dict[str, Bias]:
        """Key → where it goes, each held against the model, whose injected biases are in place."""
        places = self.places()
        parameters = dict(model.named_parameters(remove_duplicate=False))
        name = self.manifest.base.get("name", self.manifest.model_type)
        for key, place in places.items():
            if place.name not in parameters:
                raise BiaslineError(
                    f"tensor {key}: {type(model).__name__} has no such parameter", f"apply it to its own base, {name}"
                )
            if tuple(parameters[place.name].shape) != place.shape:
                raise BiaslineError(
                    f"tensor {key}: shape {place.shape}, the model has {tuple(parameters[place.name].shape)}",
                    f"apply it to its own base, {name}",
                )
        kept = {key: entry.base for key, entry in self.manifest.tensors.items() if entry.base}
        if odd := Identity(model).odd(places, kept, self.manifest.frozen):
            raise self.another_base(odd, model)
        return places

    def another_base(self, name: str, model: nn.Module) -> BiaslineError:
        """What is said where a tensor of a model is not the one of the base that the delta was trained on."""
        base, trained_in, here = self.manifest.base.get("name", ""), self.manifest.dtype, _dtype(model)
        if trained_in != here:
            way_out = f"it was trained in {trained_in}, this model is {here}: load it so, apply or merge, then cast"
        else:
            way_out = f"load the base {base} named in the delta's manifest".replace("  ", " ")
        return BiaslineError(
            f"tensor {name}: this model's values are not those of the base that the delta was trained on", way_out
        )


def _plain(place: Bias) -> torch.Tensor:
    """What entries are that a base does not have: no bias, no scaling."""
    return torch.full((place.count,), float(is_scale(place.role)))


def _foldable_scale(model: nn.Module, name: str) -> torch.Tensor:
    """The scale of a layer's outputs, held to be one that the layer's weight can take."""
    weight = model.get_submodule(name.rpartition(".")[0]).get_parameter("weight")
    owners = {
        id(model.get_submodule(other.rpartition(".")[0]))
        for other, part in model.named_parameters(remove_duplicate=False)
        if storage_of(part) == storage_of(weight)
    }
    if len(owners) > 1 or not weight.is_floating_point() or weight.ndim != 2:
        why = "is shared with another layer" if len(owners) > 1 else "is no matrix of floating-point numbers"
        raise BiaslineError(
            f"tensor {name}: the layer's weight {why}, so that no scale can be merged into it",
            "keep the delta form: load the base and apply the delta",
        )
    return model.get_parameter(name).detach().clone()


@torch.no_grad()
def _fold_scale(model: nn.Module, name: str, scale: torch.Tensor) -> None:
    """Put the scale of a layer's outputs into its weight and bias."""
    module = model.get_submodule(name.rpartition(".")[0])
    weight, bias = module.get_parameter("weight"), getattr(module, "bias", None)
    weight.copy_(weight.float() * (scale if is_transposed(module) else scale[:, None]))
    if isinstance(bias, nn.Parameter):
        bias.copy_(bias.float() * scale)


def _read_manifest(where: str, metadata: Mapping[str, str]) -> Manifest:
    if "biasline" not in metadata:
        raise BiaslineError(f"{where}: no Biasline delta: its metadata has no manifest", "name a delta.safetensors")
    try:
        raw = json.loads(metadata["biasline"])
    except json.JSONDecodeError:
        raw = None
    if not isinstance(raw, dict):
        raise BiaslineError(f"{where}: bad manifest: no JSON object", "restore the file")
    if str(raw.get("format_version")) != str(FORMAT_VERSION):
        raise BiaslineError(
            f"{where}: format version {raw.get('format_version')}; this Biasline reads {FORMAT_VERSION}",
            "install the Biasline that wrote it",
        )
    if raw.get("sha256") != _sha256(raw.get("manifest")):
        raise BiaslineError(f"{where}: the manifest is not the one that was saved", "restore the file")
    try:
        return Manifest.model_validate(raw["manifest"])
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BiaslineError(f"{where}: bad manifest: {place}: {first['msg']}", "restore the file") from None


def _sha256(manifest: object) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def frozen_hashes(tuning: BiasTuning) -> str:
    """What a delta's manifest tells of the parameters that are not trained."""
    return Identity(tuning.model).frozen({place.name for place in tuning.entries})


def _refuse_odd_values(where: str, tensors: Mapping[str, torch.Tensor]) -> None:
    for key, values in tensors.items():
        if not torch.isfinite(values).all():
            raise BiaslineError(f"{where}: tensor {key}: values that are not finite", "train at a lower rate")


def _dtype(model: nn.Module) -> str:
    return str(next(model.parameters()).dtype).removeprefix("torch.")
