"""Bias-only tuning of any `torch.nn.Module`: find, choose, train, store and apply biases.

Knows torch modules and nothing of DVC or MLflow; usable by itself.
"""

from biasline.bitfit.delta import BiasDelta, Manifest
from biasline.bitfit.inventory import Bias, Inventory, inspect_biases
from biasline.bitfit.selection import Selection, select_biases
from biasline.bitfit.tuning import BiasTuning, tune_biases

__all__ = [
    "Bias",
    "BiasDelta",
    "BiasTuning",
    "Inventory",
    "Manifest",
    "Selection",
    "inspect_biases",
    "select_biases",
    "tune_biases",
]
