"""register: the delta, packaged with its pin and code → a version in the registry."""

from stages import run_stage


def register(name: str) -> str:
    from biasline.errors import BiaslineError
    from biasline.jsonfile import dump_json
    from biasline.layout import TaskPlace, write_text
    from biasline.params import DELTA_METHODS
    from biasline.registry.sync import register as register_record
    from biasline.registry.versions import CANDIDATE, aliased, registered_note
    from biasline.tracking.publish import publish
    from biasline.tracking.record import record_of_workspace
    from biasline.tracking.store import connect, tracking_uri

    record = record_of_workspace(name)
    if record is None:
        raise BiaslineError(f"{TaskPlace(name).model}: no trained model", f"dvc repro train@{name}")
    client = connect()
    if record.resolved().train.method not in DELTA_METHODS:
        publish(client, record)
        write_text(TaskPlace(name).registered, dump_json(registered_note(record)))
        return f"{record.resolved().train.method}: compared, not registered; its run is in {tracking_uri()}"
    version = register_record(client, record)
    write_text(TaskPlace(name).registered, dump_json(registered_note(record)))
    candidate = aliased(client, name, CANDIDATE)
    is_candidate = candidate is not None and candidate.version == version.version
    alias = "the candidate" if is_candidate else "without an alias"
    return f"{version.name} version {version.version}, {alias}, in {tracking_uri()}"


if __name__ == "__main__":
    run_stage(register)
