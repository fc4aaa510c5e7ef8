"""params.yaml as frozen typed models: the one place of every default, its meaning and its limits."""

from biasline.metrics.texts import LOG_LIKELIHOOD
from biasline.params.group import Group
from biasline.params.methods import DEFAULT_METHOD, METHOD_SPECS, method_spec
from biasline.params.methods.lora import Lora
from biasline.params.methods.prefix import Prefix
from biasline.params.reading import (
    changed,
    check_inputs,
    get_task,
    parse_params,
    read_params,
    read_task,
    resolved,
)
from biasline.params.task import (
    CUSTOM,
    FLOOR,
    JINJA,
    TASK_NAME,
    TEMPLATES,
    Augment,
    Evaluate,
    Gates,
    Load,
    Params,
    Quality,
    ResolvedTrain,
    Run,
    Source,
    Split,
    Task,
    Tokens,
    Train,
    Where,
)

__all__ = [
    "CUSTOM",
    "DEFAULT_METHOD",
    "FLOOR",
    "JINJA",
    "LOG_LIKELIHOOD",
    "METHOD_SPECS",
    "TASK_NAME",
    "TEMPLATES",
    "Augment",
    "Evaluate",
    "Gates",
    "Group",
    "Load",
    "Lora",
    "Params",
    "Prefix",
    "Quality",
    "ResolvedTrain",
    "Run",
    "Source",
    "Split",
    "Task",
    "Tokens",
    "Train",
    "Where",
    "changed",
    "check_inputs",
    "get_task",
    "method_spec",
    "parse_params",
    "read_params",
    "read_task",
    "resolved",
]
