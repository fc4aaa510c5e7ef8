"""Numbers that decide how work is cut up for a device; what comes out differs by rounding.

Those of a CPU are measured, those of an accelerator assumed.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Device:
    """How to cut up work for it.

    Attributes:
        pass_cost: what one more forward and backward pass costs, in tokens.
        pass_tokens: padded tokens of a pass, where params leave it open.
        logits: entries of the logits that exist at one time.
    """

    pass_cost: int
    pass_tokens: int
    logits: int


# A pass: 30 to 45 tokens were measured with a BLOOM of 33 M parameters on two cores. Activations and logits (8 MB in
# fp32) should stay in the cache.
_CPU = Device(pass_cost=32, pass_tokens=512, logits=2**21)
# Idle below some hundred tokens; half a gigabyte of logits.
_ACCELERATOR = Device(pass_cost=512, pass_tokens=16_384, logits=2**27)


def profile_of(device: torch.device) -> Device:
    """The measures of a kind of device."""
    return _CPU if device.type == "cpu" else _ACCELERATOR
