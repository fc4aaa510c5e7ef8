"""One tenant's delta out of a registered version of a fleet."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.bases.pin import file_sha256
from biasline.bitfit import Deltas
from biasline.errors import BiaslineError, shown
from biasline.layout import replacing
from biasline.registry.versions import named_version
from biasline.serving.registered import aliased, model_name, package_files

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Extracted:
    """What was written.

    Attributes:
        name: of the registered model.
        version: of it.
        bytes: of the file.
        told: what is to be said of it.
    """

    name: str
    version: str
    bytes: int
    told: str


def extract(client: "MlflowClient", task: str, which: str, tenant: str, out: Path) -> Extracted:
    """Write the delta that serves a tenant, byte for byte as it was trained.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        tenant: its name.
        out: a file that is not there.

    Raises:
        BiaslineError: where there is no such version, it is of no fleet or does not know the tenant, or `out` is there.
    """
    if out.exists():
        raise BiaslineError(f"{shown(out)}: is there already", "name another file, or delete it")
    version = aliased(client, task, which) or named_version(client, task, which)
    files, _, hashes = package_files(version)
    told = f"{model_name(task)} version {version.version}"
    if "tenants" not in files:
        raise BiaslineError(f"{told}: is of one, not of a fleet", "its delta is the artifact delta.safetensors")
    for name in ("delta", "tenants"):
        if file_sha256(files[name]) != hashes.get(name):
            raise BiaslineError(f"{told}: its {name} is not what was packaged", f"`biasline verify {task}` tells more")
    deltas = Deltas(files["tenants"])
    if tenant not in deltas:
        raise BiaslineError(
            f"{told}: tenant {tenant!r}: not among the {len(deltas)} that it knows", deltas.alike(tenant)
        )
    is_own = tenant in deltas.own
    with replacing(out) as draft:
        if is_own:
            draft.write_bytes(deltas.file(tenant))
        else:
            shutil.copyfile(files["delta"], draft)
    beside = "" if is_own else "; it is the shared one, which serves this tenant"
    return Extracted(version.name, version.version, out.stat().st_size, beside)
