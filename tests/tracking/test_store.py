"""What is written to a store that others write to."""

import pytest
from mlflow.exceptions import MlflowException

from biasline.tracking.store import upsert

CONFLICTS = (
    '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "model_version_tag_pk"',
    "(sqlite3.IntegrityError) UNIQUE constraint failed: model_version_tags.key",
    "(pymysql.err.IntegrityError) (1062, \"Duplicate entry 'default-decision' for key 'PRIMARY'\")",
)


class Store:
    """Refuses the first writes with the given errors."""

    def __init__(self, *errors: str) -> None:
        self.errors, self.written = list(errors), []

    def write(self, *arguments: str) -> None:
        if self.errors:
            raise MlflowException(self.errors.pop(0))
        self.written.append(arguments)


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_a_row_that_another_machine_inserted_meanwhile_is_updated(conflict):
    store = Store(conflict)
    upsert(store.write, "model", "tag", "value")
    assert store.written == [("model", "tag", "value")]


def test_another_refusal_is_not_repeated():
    store = Store("Registered Model with name=model not found")
    with pytest.raises(MlflowException, match="not found"):
        upsert(store.write, "model", "tag", "value")
    assert store.written == []
