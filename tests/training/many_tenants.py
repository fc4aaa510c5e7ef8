"""One process of several that train tenants: `python -m tests.training.many_tenants PROCESSES`, in a workspace.

The shared delta is there. Each process writes whom it trained; the first writes what came of all.
"""

import json
import sys
from pathlib import Path

from biasline.bitfit import BiasDelta
from biasline.layout import TaskPlace
from biasline.params import Run, read_task
from biasline.training import own
from biasline.training.rates import resolve_learning_rates
from biasline.training.runtime.launch import joined
from biasline.training.train import load_training, train_tenants, write_tenants


def main(processes: int) -> None:
    place = TaskPlace("fleet")
    task = read_task(place.resolved)
    accelerator, trained, fit = joined(Run(processes=processes)), [], own.fit_fleet
    own.fit_fleet = lambda *given: trained.extend(tenant.name for tenant in given[2]) or fit(*given)
    loaded = load_training(task, place)
    settings = resolve_learning_rates(task.train, loaded.model)
    finished = train_tenants(task, place, loaded, settings, BiasDelta.load(place.delta), accelerator)
    Path(f"trained-{accelerator.process_index}.json").write_text(json.dumps(trained))
    if accelerator.is_main_process:
        draft = Path("draft")
        draft.mkdir()
        write_tenants(task, loaded, finished, draft)
    accelerator.end_training()


if __name__ == "__main__":
    main(int(sys.argv[1]))
