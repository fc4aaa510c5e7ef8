"""Signatures of registered versions, by the library `model-signing`: what is signed, signing, and holding against it.

What is signed is a folder of copies: every file of the version's package, what its run says of it, what the registry
says of it, and the ledger as far as it was written. A signature is that library's own (a Sigstore bundle, made by an
elliptic-curve key of the user's, without a network), and names each file with its sha256. It lies beside the ledger, in
git.
"""

import base64
import hashlib
import io
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError, first_few, first_line, shown
from biasline.jsonfile import dump_json
from biasline.layout import TaskPlace, replacing
from biasline.registry import ledger
from biasline.registry.versions import named_version
from biasline.serving.packaging import description_of, metrics_sha256
from biasline.serving.registered import aliased, is_as_registered, model_name, package_folder, run_copies

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# Of the tags of a version those that say what it is; the others are decisions and notes, which come later.
_TAGS = ("fingerprint", "package", "delta_sha256", "metrics_sha256", "test_sha256", "tenants")
# MLflow writes the first when it downloads a version, the second anew for each store: of that `description_of` counts.
_NOT_COPIED = ("registered_model_meta", "MLmodel")
_PACKAGE, _RUN, _REGISTRY, _MLMODEL = "package", "run", "registry.json", "package/MLmodel.json"
_LEDGER = re.compile(r"ledger/first-(\d+)-bytes\.jsonl")
_CURVES = ("secp256r1", "secp384r1", "secp521r1")
_HOW = "`openssl ecparam -genkey -name prime256v1 -noout -out private.pem`"
_SHORT, _NAMED = 16, 6
# The way out where a library of this page, or of a dossier, is not installed.
AUDIT = "pip install 'biasline[audit]'"


@dataclass(frozen=True)
class Signed:
    """What was signed.

    Attributes:
        version: of the registered model.
        file: the signature.
        files: how many files it covers.
        entries: how many entries of the ledger it covers.
        already: whether it was there before and said the same.
    """

    version: "ModelVersion"
    file: Path
    files: int
    entries: int
    already: bool = False


@dataclass(frozen=True)
class Standing:
    """How a version stands by a public key.

    Attributes:
        signed: whether it has a signature at all.
        holds: whether that was made by the key, of what is there now.
        told: the same in words, with what differs.
    """

    signed: bool
    holds: bool
    told: str


def signature_file(version: "ModelVersion") -> Path:
    """Where a version's signature lies: named by its training and its package, which a rebuilt store has as well."""
    task = version.name.removeprefix(model_name(""))
    named = [version.tags["biasline.fingerprint"], *filter(None, [version.tags.get("biasline.package")])]
    return TaskPlace(task).signatures / f"{'-'.join(named)}.json"


def sign(
    client: "MlflowClient", task: str, which: str, key: Path, password: bytes | None = None, password_from: str = ""
) -> Signed:
    """Sign a registered version, and the ledger as it is now; a signature from before is replaced.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        key: a private key, PEM, on one of the curves P-256, P-384 and P-521.
        password: of the key, where it has one.
        password_from: where that was read, for errors.

    Raises:
        BiaslineError: where there is no such version, its files are not what was registered, its run cannot be had or
            was evaluated again since, or the key is none.
    """
    library = _library()
    public = _public_of(key, password, password_from)
    version = aliased(client, task, which) or named_version(client, task, which)
    name = f"{version.name} version {version.version}"
    if not is_as_registered(version):
        raise BiaslineError(f"{name}: its files are not what was registered", f"`biasline verify {task}` tells more")
    target = signature_file(version)
    with tempfile.TemporaryDirectory() as scratch:
        folder, others = _staged(client, version, Path(scratch))
        needed = (TaskPlace(task).card, TaskPlace(task).metrics, TaskPlace(task).quality)
        lacking = [path.name for path in needed if not (folder / _RUN / _below(path, task)).is_file()]
        if lacking:
            raise BiaslineError(
                f"{name}: its run's {first_few(lacking)} cannot be had", f"`biasline sync {task}` where its record lies"
            )
        if others:
            raise BiaslineError(f"{name}: {first_few(others)}", f"`biasline sync {task}`, then sign")
        if metrics_sha256(folder / _RUN / _below(TaskPlace(task).metrics, task)) != version.tags.get(
            "biasline.metrics_sha256"
        ):
            raise BiaslineError(
                f"{name}: its run was evaluated again after it was packaged",
                f"sign the version of that evaluation, or `dvc repro --force register@{task}` packages anew",
            )
        done = Signed(version, target, len(_files(folder)), len(list(ledger.entries(TaskPlace(task).ledger))))
        (Path(scratch) / "public.pem").write_bytes(public)
        if target.is_file() and _faults(library, folder, target, Path(scratch) / "public.pem") == "":
            return Signed(version, target, done.files, done.entries, already=True)
        signer = library.signing.Config().set_hashing_config(_hashing(library))
        with replacing(target) as draft:
            signer.use_elliptic_key_signer(private_key=key, password=password).sign(folder, draft)
            _end_line(draft)
    return done


def standing(client: "MlflowClient", version: "ModelVersion", public: Path) -> Standing:
    """Hold a version, its run and the ledger against its signature.

    Args:
        client: client of the tracking store.
        version: a registered version.
        public: the key that it should have been signed by, PEM.

    Raises:
        BiaslineError: where the key is none, or the library is not installed.
    """
    from mlflow.exceptions import MlflowException
    from ruamel.yaml.error import YAMLError

    library, file = _library(), signature_file(version)
    _check_public(public)
    task, fingerprint = version.name.removeprefix(model_name("")), version.tags["biasline.fingerprint"]
    if not file.is_file():
        return Standing(False, False, f"not signed → `biasline sign {task}@{fingerprint} --key PRIVATE.pem`")
    covered = _covered(file)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder, others = _staged(client, version, Path(scratch), covered)
            wrong = _faults(library, folder, file, public)
            count = len(_files(folder))
    except (MlflowException, OSError, AttributeError, KeyError, TypeError, ValueError, YAMLError) as error:
        return Standing(True, False, f"its files cannot be held against {shown(file)}: {first_line(error)}")
    if wrong or others:
        told = "; ".join(filter(None, [wrong, first_few(others, _NAMED)]))
        return Standing(True, False, f"{told} (signature {shown(file)})")
    whole = ledger.written(TaskPlace(task).ledger)
    lines, there = (len(content.split(b"\n")) - content.endswith(b"\n") for content in (whole[: covered or 0], whole))
    by = f"signed by the key {_hint_of(public)[:_SHORT]}"
    return Standing(True, True, f"{by}: {count} files, and {lines} of the {there} lines of the ledger")


def package_contents(folder: Path) -> dict[str, Path]:
    """The files of a packaged model that make it: names below its folder → paths.

    Byte code that Python left beside the code when it ran it is none of them.
    """
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.relative_to(folder).as_posix() not in _NOT_COPIED
        and not (path.suffix == ".pyc" and path.parent.name == "__pycache__")
    }


def signed_names(file: Path) -> Mapping[str, str]:
    """What a signature says that it covers: files → sha256; empty where it cannot be read. It proves nothing."""
    try:
        payload = json.loads(base64.b64decode(json.loads(file.read_bytes())["dsseEnvelope"]["payload"]))
        return {one["name"]: one["digest"] for one in payload["predicate"]["resources"]}
    except (ValueError, KeyError, TypeError):
        return {}


def _staged(
    client: "MlflowClient", version: "ModelVersion", scratch: Path, covered: int | None = None
) -> tuple[Path, list[str]]:
    """Copies of all that is signed, in a folder.

    Args:
        client: client of the tracking store.
        version: a registered version.
        scratch: an empty folder.
        covered: how many bytes of the ledger; None for all of it.

    Returns:
        the folder, and what is amiss besides: copies of one file of the run that are not the same.
    """
    task = version.name.removeprefix(model_name(""))
    place, others = TaskPlace(task), []
    folder = scratch / version.name  # its name is part of what is signed
    downloads = scratch / "package", scratch / "run"
    for path in downloads:
        path.mkdir()
    source = package_folder(version, downloads[0])
    for name, path in package_contents(source).items():
        _put(path.read_bytes(), folder / _PACKAGE / name)
    _put(dump_json(description_of(source)).encode(), folder / _MLMODEL)
    for path in (place.card, place.metrics, place.quality, place.quality_page, place.train_report):
        copies = run_copies(client, version, path, downloads[1])
        for who, copy in copies.items():
            target = folder / _RUN / _below(path, task)
            if not target.is_file():
                _put(copy.read_bytes(), target)
            elif file_sha256(copy) != file_sha256(target):
                others.append(f"{path.name} of the {who} on this machine is not that of the store")
    tags = {name: version.tags.get(f"biasline.{name}", "") for name in _TAGS}
    _put(dump_json({"name": version.name, **tags}).encode(), folder / _REGISTRY)
    whole = ledger.written(place.ledger)
    size = len(whole) if covered is None else covered
    _put(whole[:size], folder / f"ledger/first-{size}-bytes.jsonl")
    return folder, others


def _put(content: bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _below(path: Path, task: str) -> str:
    return path.relative_to(TaskPlace(task).folder).as_posix()


def _files(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def _covered(file: Path) -> int | None:
    """How many bytes of the ledger a signature covers; None where it does not say."""
    found = [match for name in signed_names(file) if (match := _LEDGER.fullmatch(name))]
    return int(found[0][1]) if len(found) == 1 else None


def _faults(library: Any, folder: Path, file: Path, public: Path) -> str:
    """What is wrong with a signature of a folder, in words; empty where nothing is.

    Whether it holds is the library's to say; what differs, and whose key it was, is then told from what it names.
    """
    from cryptography.exceptions import InvalidSignature

    verifier = library.verifying.Config().set_hashing_config(_hashing(library))
    try:
        with redirect_stdout(io.StringIO()):  # it prints warnings
            verifier.use_elliptic_key_verifier(public_key=public).verify(folder, file)
    except InvalidSignature:
        return "the signature does not hold: it was changed, or made by another key"
    except Exception as error:  # whatever a damaged file makes of it
        if (theirs := _hint_in(file)) not in ("", ours := _hint_of(public)):
            return f"wrong key: it was signed by the key {theirs[:_SHORT]}, {shown(public)} is {ours[:_SHORT]}"
        differ = list(_differences(_files(folder), signed_names(file)))
        if not differ or "Signature mismatch" not in str(error):
            return f"the signature cannot be read: {first_line(error)}"
        return f"not what was signed: {first_few(differ, _NAMED)}"
    return ""


def _differences(files: Mapping[str, Path], signed: Mapping[str, str]) -> Iterator[str]:
    """What differs, named; what a model is made of before its code."""
    for name in sorted({*files, *signed}, key=lambda name: (name.startswith(f"{_PACKAGE}/code/"), name)):
        if name not in files:
            yield f"{_word(name)} is missing"
        elif name not in signed:
            yield f"{_word(name)} was added"
        elif file_sha256(files[name]) != signed[name]:
            yield f"{_word(name)} has changed"


def _word(name: str) -> str:
    """What people call a file of those that are signed."""
    if match := _LEDGER.fullmatch(name):
        return f"the ledger (its first {int(match[1]):,} bytes)"
    if name == _REGISTRY:
        return "what the registry says of the version (its tags)"
    return "MLmodel" if name == _MLMODEL else name.partition("/")[2]


def _library() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise BiaslineError(f"signatures want a library: {first_line(error)}", AUDIT) from None
    return model_signing


def _hashing(library: Any) -> Any:
    """sha256 of each file, none left out; otherwise the library leaves out what git would."""
    return library.hashing.Config().use_file_serialization().set_ignored_paths(paths=[], ignore_git_paths=False)


def _end_line(file: Path) -> None:
    file.write_bytes(file.read_bytes().rstrip(b"\n") + b"\n")


def _public_of(key: Path, password: bytes | None, password_from: str) -> bytes:
    """The public half of a private key, PEM.

    Raises:
        BiaslineError: where it is none, or not one that the library signs by.
    """
    from cryptography.hazmat.primitives import serialization

    way = f"name a private key on a curve, PEM: {_HOW}"
    if not key.is_file():
        raise BiaslineError(f"{shown(key)}: no such key", way)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password)
    except (ValueError, TypeError) as error:
        told = str(error).lower()
        if "password" in told or "decrypt" in told or "encrypted" in told:
            asked = f"the password in {password_from} does not fit" if password else "is encrypted"
            raise BiaslineError(f"{shown(key)}: {asked}", "--password-from VARIABLE names where it is") from None
        raise BiaslineError(f"{shown(key)}: no private key: {first_line(error)}", way) from None
    _check_curve(key, private)
    found: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return found


def _check_public(path: Path) -> None:
    """Refuse what is no public key of a kind that the library signs by."""
    from cryptography.hazmat.primitives import serialization

    way = "name the public half, PEM: `openssl ec -in private.pem -pubout -out public.pem`"
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such key", way)
    try:
        public = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise BiaslineError(f"{shown(path)}: no public key: {first_line(error)}", way) from None
    _check_curve(path, public)


def _check_curve(path: Path, key: Any) -> None:
    curve = getattr(getattr(key, "curve", None), "name", "")
    if curve not in _CURVES:
        told = f"of the curve {curve}" if curve else "of no elliptic curve"
        raise BiaslineError(f"{shown(path)}: a key {told}; wanted is P-256, P-384 or P-521", _HOW)


def _hint_of(public: Path) -> str:
    """How a signature names the key that made it: sha256 of the public key as PEM."""
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_public_key(public.read_bytes())
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _hint_in(file: Path) -> str:
    try:
        return str(json.loads(file.read_bytes())["verificationMaterial"]["publicKey"]["hint"] or "")
    except (ValueError, KeyError, TypeError):
        return ""


def copy_signature(version: "ModelVersion", target: Path) -> bool:
    """Copy a version's signature to a file; whether there is one."""
    file = signature_file(version)
    if file.is_file():
        shutil.copyfile(file, target)
    return file.is_file()
