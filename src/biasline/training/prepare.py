"""What is done to a base so that training it costs less, or is possible at all."""

import os
import shutil
from collections.abc import Iterable

from accelerate import Accelerator
from torch import nn

from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError, first_line
from biasline.params import Run
from biasline.training.kernels import fuse_activations

_RECOMPILED = 64


def prepare(model: PretrainedModel, trained: Iterable[nn.Parameter], run: Run, accelerator: Accelerator) -> None:
    """Change a model, frozen but for what is trained, as params ask; its outputs stay what they were but for rounding.

    Args:
        model: the base.
        trained: what the optimizer works on.
        run: how it is run.
        accelerator: devices and processes.

    Raises:
        BiaslineError: where this model or machine cannot do what is asked.
    """
    fuse_activations(model)
    if run.recompute:
        try:
            model.activation_checkpointing_enable({"use_reentrant": False})
            # It has embeddings ask for gradients, which only the reentrant kind needs: the backward pass is to end at
            # the lowest layer that is trained.
            model.disable_input_require_grads()
        except ValueError as error:
            raise BiaslineError(f"run.recompute: {first_line(error)}", "leave it out for this base") from None
    if run.compile:
        compilers = [os.environ.get("CXX", ""), "g++", "clang++", "c++"]
        if accelerator.device.type == "cpu" and not any(shutil.which(name) for name in compilers if name):
            raise BiaslineError("run.compile: there is no C++ compiler", "install g++ or clang++, or leave it out")
        from torch._dynamo import config

        # Layers share their code, which is compiled once for each of: training or not, gradients or not, inputs that
        # need some or not. Beyond the limit they would run as they are.
        config.recompile_limit = max(_RECOMPILED, config.recompile_limit)
        for layer in _layers(model):
            layer.compile(dynamic=True)
    if run.shard:
        _shard(model, trained, accelerator)


def _layers(model: PretrainedModel) -> list[nn.Module]:
    """The repeated layers, as Transformers names their classes."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names] or [model]


def _shard(model: PretrainedModel, trained: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """Spread the frozen parameters over the processes (FSDP2).

    Layers are put together as they are needed. What is trained stays whole in each process: it is small, and no
    exchange of gradients but our own is needed.
    """
    from torch.distributed.fsdp import fully_shard

    if accelerator.num_processes == 1:
        raise BiaslineError("run.shard: there is one process", "set run.processes, or leave it out")
    whole = {part for part in model.parameters() if part.requires_grad} | set(trained)
    if len(whole) == len(set(model.parameters())):
        raise BiaslineError("run.shard: nothing is frozen that could be spread", "leave it out for train.method full")
    for part in whole:
        part.data = part.data.to(accelerator.device)
    for module in (*_layers(model), model):
        fully_shard(module, ignored_params=whole)
