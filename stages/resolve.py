"""resolve: the task's entry in params.yaml → task.json with every default merged."""

from stages import run_stage


def resolve(name: str) -> str:
    from pathlib import Path

    from biasline.data.columns import check_columns
    from biasline.jsonfile import dump_json
    from biasline.layout import PARAMS, TaskPlace, write_text
    from biasline.params import check_inputs, get_task, read_params, resolved

    task = get_task(read_params(PARAMS), name, str(PARAMS))
    check_inputs(name, task, Path())
    check_columns(task)
    place = TaskPlace(name)
    write_text(place.resolved, dump_json(resolved(task, Path()).model_dump(mode="json")))
    return f"{place.resolved} written"


if __name__ == "__main__":
    run_stage(resolve)
