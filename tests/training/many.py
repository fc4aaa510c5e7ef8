"""One process of several that train together: `python -m tests.training.many FOLDER [shard]`.

The first writes what came out, how many there were, and what they exchanged.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed
from transformers import BloomConfig, BloomForCausalLM, GraniteConfig, GraniteForCausalLM

from biasline.bitfit import tune_biases
from biasline.params import Run, Train
from biasline.training.batches import Plan
from biasline.training.loop import Sets, fit
from biasline.training.loss import ResponseTokens
from biasline.training.methods import WholeTuning
from biasline.training.prepare import prepare
from biasline.training.runtime.launch import joined
from tests.training.test_loop import token_set, without_seconds


def main(folder: Path, processes: int, what: str) -> None:
    torch.set_num_threads(1)
    accelerator = joined(Run(processes=processes))
    exchanged = counted()
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=100, hidden_size=32, n_layer=2, n_head=4, pad_token_id=3)
    model = BloomForCausalLM(config).eval()
    if what == "scaled":
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        biases = {"attention_bias": True, "mlp_bias": True}
        config = GraniteConfig(vocab_size=100, pad_token_id=3, logits_scaling=8.0, **sizes, **biases)
        model = GraniteForCausalLM(config).eval()
    tuning = WholeTuning({"weights": list(model.parameters())}) if what == "full" else tune_biases(model)
    # 23 rows by 7: the last step of an epoch has two rows, so that some processes have none.
    params = Train(learning_rate=1e-3, batch_size=7, epochs=1, min_steps=8, evaluate_every=4, micro_batch_tokens=20)
    if what == "scaled":
        params = params.model_copy(update={"batch_size": 1})
    rows = token_set(23)
    prepare(model, tuning.masters, Run(shard=what == "shard", processes=processes), accelerator)
    history = fit(
        model,
        tuning,
        Plan.of(len(rows), params),
        Sets(rows, token_set(9, seed=1), ResponseTokens(), 3),
        params,
        lambda *_: None,
        accelerator=accelerator,
        sharded=what == "shard",
    )
    if accelerator.is_main_process:
        local = [getattr(part, "to_local", lambda part=part: part)() for part in model.parameters()]
        held = sum(part.numel() for part in local)
        values = torch.cat([master.detach().flatten() for master in tuning.masters]).tolist()
        told = {"processes": accelerator.num_processes, "values": values, "rows": without_seconds(history)}
        told |= {"held": held, **exchanged}
        (folder / f"{what}-{processes}.json").write_text(json.dumps(told))
    accelerator.end_training()


def counted() -> dict[str, int]:
    """Counts bytes that are summed over all processes, from now on."""
    found = {"bytes": 0, "calls": 0}
    plain = torch.distributed.all_reduce

    def all_reduce(tensor, *arguments, **more):
        found["bytes"] += tensor.numel() * tensor.element_size()
        found["calls"] += 1
        return plain(tensor, *arguments, **more)

    torch.distributed.all_reduce = all_reduce
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
