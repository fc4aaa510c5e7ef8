"""Export as an adapter of PEFT's: exact where a bias has a place in it, else the nearest LoRA of rank one.

A LoRA adds B·A·x to the output of a linear layer, which is constant only where A·x is. Of rank one, with the bias as B,
the nearest has as A the row that comes nearest to A·x = 1 on the inputs that the layer sees: ridge regression of 1 on
them, all in fp64. Inputs of a Transformer's layers lie nearly in such a plane; how nearly is measured on rows that the
regression has not seen.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from biasline.bitfit.inventory import linear_outputs
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.evaluation.generate import Drawing, generate
from biasline.layout import readable_as, replacing
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor
from biasline.serving.proof import check_same, outputs
from biasline.serving.transformers_export import check_free
from biasline.training.methods.peft_adapter import restore_adapter, save_adapter

# Share of rows behind which the regression stands; the others are the proof.
_FITTED = 2 / 3
# Least share of rows that a LoRA of rank one must answer as the delta does.
LEAST = 0.9
_RIDGE = 1e-6
# Of the regressions that are summed up in one pass over the rows, in numbers.
_AT_ONCE = 64 * 2**20
_OTHERWISE = "`biasline export --to hf`, which writes base and biases as one"


@dataclass(frozen=True)
class ExportedLora:
    """What was written.

    Attributes:
        bytes: of the folder.
        compared: rows that the proof stands on.
        nearest: of a LoRA of rank one, how near it is; None where the adapter holds the biases themselves.
    """

    bytes: int
    compared: int
    nearest: "Nearest | None" = None


@dataclass(frozen=True)
class Nearest:
    """How near LoRAs of rank one come to biases.

    Attributes:
        error: role → by how much what is added differs from the bias, root mean square as a share of the bias.
        same: share of the compared rows to which the answer is the delta's, greedily.
        base: share of them to which the delta's answer is the untuned base's.
    """

    error: dict[str, float]
    same: float
    base: float


def export_lora(
    package: Package, out: Path, rows: Sequence[dict[str, Any]], *, target: str, fingerprint: str
) -> ExportedLora:
    """Write a delta as an adapter folder.

    Args:
        package: base, delta and task.
        out: a folder that is not there, or empty.
        rows: of the task's kind, three at least.
        target: the program that reads it: `transformers` (PEFT reads the biases themselves, `lora_bias`), or one that
            knows LoRAs alone.
        fingerprint: of the training, noted in the folder.

    Raises:
        BiaslineError: where a bias lies on no linear layer, where PEFT gives other outputs, or where the nearest LoRA
            answers otherwise than the delta does; nothing is left behind then.
    """
    check_free(out)
    _check(package)
    predictor = package.predictor()
    plain = package.load(package.base())
    changes = _changes(package, plain)
    roles = {key.partition("#")[0]: entry.role for key, entry in package.delta.manifest.tensors.items()}
    base_name = package.pin.source.repo or package.pin.name
    exact = target in ("", "transformers")
    with replacing(out) as draft:
        if exact:
            _save(plain, {name: (None, change) for name, change in changes.items()}, draft, base_name)
            inputs = predictor.inputs(rows)
            wanted = outputs(predictor.model, inputs, package.headed)
            found = outputs(_reloaded(package, draft), inputs, package.headed)
            check_same("the base with the adapter, as PEFT loads it,", wanted, found, rows, _OTHERWISE)
            nearest, compared = None, len(rows)
        else:
            nearest, compared = _approximate(package, predictor, plain, changes, roles, rows, draft, base_name, target)
        (draft / "biasline.json").write_text(
            f'{{"fingerprint": "{fingerprint}", "base": "{package.pin.digest}"}}\n', encoding="utf-8"
        )
        if out.is_dir():
            out.rmdir()
    return ExportedLora(sum(path.stat().st_size for path in out.iterdir()), compared, nearest)


def _check(package: Package) -> None:
    package.refuse_fleet("`biasline extract` gives one tenant's delta")
    if package.headed:
        raise BiaslineError(f"a {package.task.kind}: its head is no part of an adapter", "`biasline export --to hf`")


def _changes(package: Package, plain: PretrainedModel) -> dict[str, torch.Tensor]:
    """Name of each bias → what was trained, minus the base's; all on linear layers."""
    found: dict[str, torch.Tensor] = {}
    for place, change in package.delta.change(plain):
        path, _, attribute = place.name.rpartition(".")
        if attribute != "bias" or not linear_outputs(plain.get_submodule(path)):
            raise BiaslineError(
                f"{place.name}: an adapter changes linear layers alone, and adds to their outputs", _OTHERWISE
            )
        whole = found.setdefault(place.name, torch.zeros(place.shape))
        place.write(whole, change)
    return found


def _approximate(
    package: Package,
    predictor: Predictor,
    plain: PretrainedModel,
    changes: Mapping[str, torch.Tensor],
    roles: Mapping[str, str],
    rows: Sequence[dict[str, Any]],
    draft: Path,
    base_name: str,
    target: str,
) -> tuple[Nearest, int]:
    count = max(1, int(len(rows) * _FITTED))
    if len(rows) <= count:
        raise BiaslineError(f"{len(rows)} test rows: some must be left to compare the adapter on", _OTHERWISE)
    prompts = [row["input_ids"] for row in predictor.inputs(rows)]
    wanted = _answers(predictor, predictor.model, prompts)
    read = [
        [*prompt, *predictor.tokenizer(text, add_special_tokens=False)["input_ids"]]
        for prompt, text in zip(prompts, wanted, strict=True)
    ]
    fitted, held = read[:count], read[count:]
    paths = [name.rpartition(".")[0] for name in changes]
    planes: dict[str, torch.Tensor] = {}
    errors: dict[str, list[float]] = defaultdict(list)
    for group in _groups(predictor.model, paths):
        found = _planes(predictor.model, group, fitted)
        planes |= found
        for path, missed in _misses(predictor.model, found, held).items():
            errors[roles[f"{path}.bias"]].append(missed)
    _save(
        plain, {name: (planes[name.rpartition(".")[0]], change) for name, change in changes.items()}, draft, base_name
    )
    given = _answers(predictor, _reloaded(package, draft), prompts[count:])
    base = _answers(predictor, package.load(package.base()), prompts[count:])
    said, compared = wanted[count:], len(held)
    same, as_base = (sum(map(str.__eq__, said, other)) / compared for other in (given, base))
    error = {role: sum(each) / len(each) for role, each in sorted(errors.items())}
    if same < LEAST:
        far = ", ".join(f"{role} {value:.1%}" for role, value in error.items())
        raise BiaslineError(
            f"{target} takes LoRAs alone, and the nearest of rank one gives the delta's answer to {same:.0%} of "
            f"{compared} rows ({LEAST:.0%} are asked for); what it adds is off by {far}",
            _OTHERWISE,
        )
    return Nearest(error, same, as_base), compared


def _answers(predictor: Predictor, model: PretrainedModel, prompts: list[list[int]]) -> list[str]:
    """Greedy answers."""
    settings = predictor.task.evaluate
    drawing = Drawing(settings.max_new_tokens)
    said = generate(model, predictor.tokenizer, prompts, drawing, settings.batch_size, predictor.stops)
    return [answer.text for answer in said]


def _groups(model: PretrainedModel, paths: Sequence[str]) -> Iterator[list[str]]:
    """Layers whose regressions fit into memory together."""
    group: list[str] = []
    size = 0
    for path in paths:
        width = _inputs(model.get_submodule(path)) ** 2
        if group and size + width > _AT_ONCE:
            yield group
            group, size = [], 0
        group.append(path)
        size += width
    yield group


def _inputs(module: nn.Module) -> int:
    shape = module.get_parameter("weight").shape
    return int(shape.numel() // linear_outputs(module))


def _planes(model: PretrainedModel, paths: Sequence[str], rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Path of a layer → the row whose product with its inputs is nearest to one."""
    squares: dict[str, torch.Tensor] = {}
    sums: dict[str, torch.Tensor] = {}

    def see(path: str, inputs: torch.Tensor) -> None:
        squares[path] = squares.get(path, 0.0) + inputs.T @ inputs
        sums[path] = sums.get(path, 0.0) + inputs.sum(0)

    _watch(model, paths, rows, see)
    found = {}
    for path in paths:
        square = squares[path]
        ridge = _RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype)
        found[path] = torch.linalg.solve(square + ridge, sums[path]).float()
    return found


def _misses(
    model: PretrainedModel, planes: Mapping[str, torch.Tensor], rows: Sequence[Sequence[int]]
) -> dict[str, float]:
    """Path of a layer → root mean square of what is not one."""
    squares: dict[str, list[float]] = defaultdict(list)

    def see(path: str, inputs: torch.Tensor) -> None:
        squares[path] += ((inputs @ planes[path].double() - 1) ** 2).tolist()

    _watch(model, list(planes), rows, see)
    return {path: (sum(found) / len(found)) ** 0.5 for path, found in squares.items()}


def _watch(model: PretrainedModel, paths: Sequence[str], rows: Sequence[Sequence[int]], see: Any) -> None:
    """Run rows, one at a time, and show each layer's inputs, (tokens, width), fp64."""

    def hook(path: str) -> Any:
        return lambda module, inputs: see(path, inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double().cpu())

    hooks = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        with torch.inference_mode():
            for row in rows:
                model(input_ids=torch.tensor([list(row)], device=model.device))
    finally:
        for one in hooks:
            one.remove()


def _save(
    plain: PretrainedModel, parts: Mapping[str, tuple[torch.Tensor | None, torch.Tensor]], out: Path, base_name: str
) -> None:
    """Write an adapter of rank one, or of biases alone where there is no row to multiply inputs with."""
    from peft import LoraConfig, get_peft_model

    as_biases = all(row is None for row, _ in parts.values())
    paths = [name.rpartition(".")[0] for name in parts]
    config = LoraConfig(r=1, lora_alpha=1, lora_dropout=0.0, target_modules=paths, lora_bias=as_biases)
    with _quiet():
        adapted = get_peft_model(plain, config)
        with torch.no_grad():
            for path, (row, change) in zip(paths, parts.values(), strict=True):
                layer: Any = plain.get_submodule(path)
                first, second = layer.lora_A["default"], layer.lora_B["default"]
                first.weight.zero_()
                second.weight.zero_()
                if row is None:
                    second.bias.copy_(change)
                else:
                    first.weight.copy_(row[None])
                    second.weight.copy_(change[:, None])
        save_adapter(adapted, out, base_name)
    readable_as(out / "adapter_config.json", out.glob("*.safetensors"))


def _reloaded(package: Package, folder: Path) -> PretrainedModel:
    """The base with the adapter in it, as PEFT loads it."""
    model = package.load(package.base())
    with _quiet():
        restore_adapter(model, folder)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PEFT's warnings: of biases that layers without any cannot take over, of shapes that biases have."""
    with warnings.catch_warnings():
        for category in (UserWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
