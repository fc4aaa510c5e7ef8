"""register: the delta, packaged with its pin and code → a version in the registry."""

from stages import run_stage


def register(name: str) -> str:
    from biasline.errors import BiaslineError
    from biasline.jsonfile import dump_json
    from biasline.layout import TaskPlace, write_text
    from biasline.registry.sync import register_or_note
    from biasline.registry.versions import registered_note
    from biasline.tracking.record import record_of_workspace

    record = record_of_workspace(name)
    if record is None:
        raise BiaslineError(f"{TaskPlace(name).model}: no trained model", f"dvc repro train@{name}")
    note = dump_json(registered_note(record))
    told = register_or_note(record)
    write_text(TaskPlace(name).registered, note)
    return told


if __name__ == "__main__":
    run_stage(register)
