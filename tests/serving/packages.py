"""Packages on the demo base, moved at random as training would, and rows to ask them."""

import torch

from biasline.bases.pin import read_pin
from biasline.bitfit import BiasDelta, Deltas, tune_biases
from biasline.bitfit.deltas import file_of, write_index
from biasline.params import Task
from biasline.serving.package import Package

PIN = "data/bases/tiny-bloom.json"


def package(workspace, seed, labels=(), **more):
    """A task on the demo base, see `moved`."""
    kind = "classification" if labels else "instruction"
    return moved(
        workspace / PIN, Task(kind=kind, base=PIN, data="d", evaluate={"max_new_tokens": 6}, **more), seed, labels
    )


def moved(path, task, seed, labels, biases="attention+mlp", size=0.3, layers=""):
    """A task whose biases and head were moved at random, as training would; those that it lacks are injected."""
    pin = read_pin(path)
    about = {"pooling": "mean"} if task.train.pooling == "mean" else {}
    empty = Package(task, _Labelled(labels, about), pin, path)
    model = empty.load(empty.base())
    head = [name for name, _ in model.named_parameters() if name.startswith(("score", "classifier"))]
    tuning = tune_biases(model, biases, layers, head=head, inject=task.train.inject)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for master in tuning.masters:
            master.add_(torch.randn(master.shape, generator=generator) * size)
    base = {"name": pin.name, "digest": pin.digest}
    return Package(task, BiasDelta.of(tuning, base=base, about=about, labels=labels), pin, path)


def on_llama(pin, biases="attention+mlp", template="chat", size=0.3, layers="", **train):
    """An instruction task on the small LLaMA of a GGUF file, whose biases are injected."""
    train = {"biases": biases, "layers": layers, "inject": biases, **train}
    tokens = {"template": template, "max_length": 64}
    task = Task(base=str(pin), data="d", train=train, tokens=tokens, evaluate={"max_new_tokens": 6})
    return moved(pin, task, 3, (), biases, size, layers)


class _Labelled:
    """As much of a delta as loading its base asks for."""

    def __init__(self, labels, about):
        self.manifest = self
        self.labels = list(labels)
        self.about = about


TEXTS = ["Count to three.", "What a fine day"]
ROWS = {
    "answers": [{"instruction": text} for text in TEXTS],
    "rhymes": [{"instruction": text} for text in TEXTS],
    "mood": [{"text": text} for text in TEXTS],
    "topic": [{"text": text} for text in TEXTS],
}


def four_packages(workspace):
    """Two tasks of instructions and two classifications."""
    return {
        "mood": package(workspace, 1, ["bad", "good"]),
        "answers": package(workspace, 2),
        "topic": package(workspace, 3, ["art", "music", "sport"]),
        "rhymes": package(workspace, 4),
    }


def fleet(workspace, names, unknown="error"):
    """A fleet of instructions: a shared delta, and one of its own for each name but the last."""
    tenants = {"column": "shop", "unknown": unknown}
    task = Task(base=PIN, data="d", evaluate={"max_new_tokens": 6}, tenants=tenants)
    shared, folder = moved(workspace / PIN, task, 10, ()), workspace / "own"
    folder.mkdir()
    own = {name: moved(workspace / PIN, task, 11 + number, ()).delta for number, name in enumerate(names[:-1])}
    for name, delta in own.items():
        delta.save(folder / file_of(name))
    write_index(folder, own, names[-1:])
    return Package(task, shared.delta, shared.pin, shared.pin_path, Deltas(folder))
