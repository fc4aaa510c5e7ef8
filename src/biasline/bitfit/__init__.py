"""Bias-only tuning of any `torch.nn.Module`: find, choose, inject, train, store and apply biases.

Knows torch modules and nothing of DVC or MLflow; usable by itself.
"""

from biasline.bitfit.bank import Bank
from biasline.bitfit.bank_tuning import BankTuning
from biasline.bitfit.delta import BiasDelta, Difference, Manifest
from biasline.bitfit.deltas import Deltas
from biasline.bitfit.inventory import Bias, Inventory, by_role, inspect_biases
from biasline.bitfit.selection import Selection, select_biases, select_linears
from biasline.bitfit.tenants import Tenants
from biasline.bitfit.tuning import BiasTuning, tune_biases, tune_head

__all__ = [
    "Bank",
    "BankTuning",
    "Bias",
    "BiasDelta",
    "BiasTuning",
    "Deltas",
    "Difference",
    "Inventory",
    "Manifest",
    "Selection",
    "Tenants",
    "by_role",
    "inspect_biases",
    "select_biases",
    "select_linears",
    "tune_biases",
    "tune_head",
]
