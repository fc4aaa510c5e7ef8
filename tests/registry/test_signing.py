"""Signatures: what they cover, and that nothing of it changes unseen."""

import base64
import json
import shutil
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from typer.testing import CliRunner

from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry import ledger, signing
from biasline.registry.promote import promote
from biasline.registry.signing import sign, signature_file, standing
from biasline.registry.sync import sync
from tests.conftest import LENIENT_GATES
from tests.registry.keys import make_keys
from tests.registry.test_restore import purge

LENIENT = Task(base="b", data="d", gates=LENIENT_GATES)
SIGNED_ONLY = Task(base="b", data="d", gates={**LENIENT_GATES, "require_signature": "key.pub.pem"})


@pytest.fixture
def promoted(registered_small, monkeypatch):
    monkeypatch.setattr("biasline.registry.verify._fault", lambda *_: "")  # seconds each: `test_verify.py` has it
    client, record = registered_small
    promote(client, "small", LENIENT, "ann", "the first")
    return client, record


@pytest.fixture
def signed(promoted, workspace):
    """The champion, signed: the client, its version and the public key."""
    client, record = promoted
    private, public = make_keys(workspace)
    done = sign(client, "small", "champion", private)
    assert done.files > 50 and done.entries == 1 and not done.already
    return client, done.version, public


def champion(client):
    return client.get_model_version_by_alias("biasline-small", "champion")


def run(*arguments):
    return CliRunner().invoke(app, list(arguments))


def changed_byte(path, place=-2):
    """Change one byte of a file; JSON and text stay such, mostly."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def packaged(workspace, name):
    [path] = (workspace / "mlartifacts").rglob(f"models/*/artifacts/**/{name}")
    return path


def in_run(workspace, name):
    [path] = (path for path in (workspace / "mlartifacts").rglob(name) if "models" not in path.parts)
    return path


def test_a_signed_champion_is_told_as_such_by_the_command(promoted, workspace):
    private, public = make_keys(workspace)
    before = run("verify", "small", "--signature", str(public))
    assert (
        before.exit_code == 1
        and "champion: version 1" in before.output
        and "not signed → `biasline sign" in before.output
    )
    done = run("sign", "small", "--key", str(private))
    assert done.exit_code == 0, done.output
    assert "biasline-small version 1 signed: " in done.output and "data/small/signatures/" in done.output
    told = run("verify", "--signature", str(public))
    assert told.exit_code == 0, told.output
    assert "1 of the 1 lines of the ledger" in told.output
    assert run("verify").exit_code == 0, "without a key nobody asks for a signature"
    file = signature_file(champion(promoted[0]))
    names = set(signing.signed_names(file))
    assert {"package/artifacts/delta.safetensors", "package/artifacts/pin.json", "package/artifacts/task.json"} <= names
    assert {"run/evaluation/card.md", "run/evaluation/metrics.json", "run/quality.json", "registry.json"} <= names
    assert any(name.startswith("package/code/biasline/") for name in names)
    assert str(workspace) not in base64.b64decode(json.loads(file.read_text())["dsseEnvelope"]["payload"]).decode()


def test_to_sign_again_changes_nothing_until_something_was_decided(signed, workspace):
    client, version, public = signed
    before = signature_file(version).read_bytes()
    done = run("sign", "small", "--key", str(workspace / "key.pem"), "--json")
    assert json.loads(done.output)["already"] and signature_file(version).read_bytes() == before
    ledger.append(TaskPlace("small").ledger, ledger.REFUSED, by="bob", reason="no", fingerprint="f" * 16)
    told = standing(client, version, public)
    assert told.holds and told.told.endswith(" files, and 1 of the 2 lines of the ledger")
    assert not sign(client, "small", "champion", workspace / "key.pem").already
    assert standing(client, version, public).told.endswith("2 of the 2 lines of the ledger")
    assert len(list(TaskPlace("small").signatures.iterdir())) == 1


CHANGES = {
    "delta": (lambda at: packaged(at, "delta.safetensors"), "delta.safetensors has changed"),
    "pin": (lambda at: packaged(at, "pin.json"), "pin.json has changed"),
    "task": (lambda at: packaged(at, "task.json"), "task.json has changed"),
    "code": (lambda at: packaged(at, "predictor.py"), "predictor.py has changed"),
    "requirements": (lambda at: packaged(at, "requirements.txt"), "requirements.txt has changed"),
    "card": (lambda at: in_run(at, "card.md"), "card.md"),
    "metrics": (lambda at: in_run(at, "metrics.json"), "metrics.json"),
    "data report": (lambda at: in_run(at, "quality.json"), "quality.json"),
    "card in the record": (lambda at: next((at / ".biasline/records").rglob("card.md")), "card.md of the record"),
    "ledger": (lambda at: at / "data/small/promotions.jsonl", "the ledger (its first "),
}


def test_one_changed_byte_is_refused_and_named(signed, workspace):
    client, version, public = signed
    for what, (find, named) in CHANGES.items():
        path = find(workspace)
        before = path.read_bytes()
        changed_byte(path)
        told = standing(client, version, public)
        assert told.signed and not told.holds and named in told.told, (what, told.told)
        others = {word for word in ("delta.safetensors", "pin.json", "card.md", "the ledger") if word in told.told}
        assert others <= {named.partition(" (")[0].partition(" has")[0].partition(" of")[0]}, "and nothing else"
        path.write_bytes(before)
    assert standing(client, version, public).holds


def test_a_changed_word_of_the_ledger_is_refused_by_the_command(signed, workspace):
    path = workspace / "data/small/promotions.jsonl"
    path.write_text(path.read_text().replace("the first", "the worst"))
    done = run("verify", "small", "--signature", "key.pub.pem")
    assert done.exit_code == 1 and "WRONG: champion: version 1" in done.output
    assert "not what was signed: the ledger (its first" in done.output
    assert run("verify", "small").exit_code == 0


def test_what_is_missing_added_or_retagged_is_named(signed, workspace):
    client, version, public = signed
    pin = packaged(workspace, "pin.json")
    (pin.parent / "more.bin").write_bytes(b"x")
    client.set_model_version_tag("biasline-small", "1", "biasline.test_sha256", "another")
    described = packaged(workspace, "MLmodel")
    described.write_text(described.read_text().replace("mlflow.pyfunc.loaders.code_model", "evil"))
    pin.unlink()
    told = standing(client, champion(client), public).told
    for word in ("pin.json is missing", "more.bin was added", "MLmodel has changed", "says of the version (its tags)"):
        assert word in told


def test_byte_code_that_a_server_leaves_is_no_change(signed, workspace):
    client, version, public = signed
    cache = packaged(workspace, "predictor.py").parent / "__pycache__"
    cache.mkdir()
    (cache / "predictor.cpython-311.pyc").write_bytes(b"x")
    assert standing(client, version, public).holds


def test_another_key_is_refused_as_such(signed, workspace):
    client, version, _ = signed
    _, other = make_keys(workspace, "other")
    told = standing(client, version, other)
    assert not told.holds and told.told.startswith("wrong key: it was signed by the key ")
    done = run("verify", "small", "--signature", str(other))
    assert done.exit_code == 1 and "wrong key" in done.output


def test_a_forged_signature_does_not_hold(signed, workspace):
    """By another key that says it is the right one; and with what it covers rewritten."""
    client, version, public = signed
    file = signature_file(version)
    genuine = json.loads(file.read_text())
    other, _ = make_keys(workspace, "other")
    sign(client, "small", "champion", other)
    forged = json.loads(file.read_text())
    forged["verificationMaterial"] = genuine["verificationMaterial"]
    file.write_text(json.dumps(forged))
    assert "changed, or made by another key" in standing(client, version, public).told
    payload = base64.b64decode(genuine["dsseEnvelope"]["payload"]).replace(b"card.md", b"cord.md")
    genuine["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    file.write_text(json.dumps(genuine))
    assert not standing(client, version, public).holds
    file.write_text("{}")
    told = standing(client, version, public)
    assert told.signed and not told.holds
    file.write_text("no JSON")
    assert "the signature cannot be read" in standing(client, version, public).told


def test_another_models_signature_does_not_hold(signed, workspace):
    client, version, public = signed
    client.set_model_version_tag("biasline-small", "1", "biasline.package", "0" * 16)
    version = champion(client)
    signature_file(version).write_bytes(next(TaskPlace("small").signatures.iterdir()).read_bytes())
    assert "what the registry says of the version" in standing(client, version, public).told


def test_a_version_that_is_not_what_was_registered_is_not_signed(promoted, workspace):
    client, _ = promoted
    private, _ = make_keys(workspace)
    changed_byte(packaged(workspace, "pin.json"))
    with pytest.raises(BiaslineError, match="not what was registered"):
        sign(client, "small", "champion", private)
    assert not TaskPlace("small").signatures.exists()


def test_a_run_whose_copies_differ_is_not_signed(promoted, workspace):
    client, _ = promoted
    private, _ = make_keys(workspace)
    changed_byte(in_run(workspace, "card.md"))
    with pytest.raises(BiaslineError, match="card.md of the record on this machine is not that of the store"):
        sign(client, "small", "champion", private)


def test_a_run_that_was_purged_is_signed_by_its_record(promoted, workspace):
    client, record = promoted
    private, public = make_keys(workspace)
    purge(workspace, champion(client).run_id)
    done = sign(client, "small", "champion", private)
    assert standing(client, done.version, public).holds


def test_keys_that_are_none_are_told(promoted, workspace, monkeypatch):
    client, _ = promoted
    locked, _ = make_keys(workspace, "locked", b"open sesame")
    odd, _ = make_keys(workspace, "odd", curve=ec.SECP256K1())
    wrong = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (workspace / "rsa.pem").write_bytes(wrong)
    (workspace / "text.pem").write_text("no key")
    cases = {"gone.pem": "no such key", "text.pem": "no private key", "rsa.pem": "of no elliptic curve"}
    for name, told in {**cases, odd.name: "of the curve secp256k1", locked.name: "is encrypted"}.items():
        with pytest.raises(BiaslineError, match=told):
            sign(client, "small", "champion", workspace / name)
    monkeypatch.setenv("SECRET", "open barley")
    with pytest.raises(BiaslineError, match="the password in SECRET does not fit"):
        sign(client, "small", "champion", locked, b"open barley", "SECRET")
    assert "not in the environment" in str(
        run("sign", "small", "--key", str(locked), "--password-from", "NONE").exception
    )
    monkeypatch.setenv("SECRET", "open sesame")
    done = run("sign", "small", "--key", str(locked), "--password-from", "SECRET")
    assert done.exit_code == 0, done.output
    for name, told in {"gone.pem": "no such key", "text.pem": "no public key", "locked.pem": "no public key"}.items():
        with pytest.raises(BiaslineError, match=told):
            standing(client, champion(client), workspace / name)


def test_without_the_library_the_way_out_is_told(promoted, workspace, monkeypatch):
    client, _ = promoted
    private, public = make_keys(workspace)
    monkeypatch.setitem(sys.modules, "model_signing", None)
    for call in (
        lambda: sign(client, "small", "champion", private),
        lambda: standing(client, champion(client), public),
    ):
        with pytest.raises(BiaslineError, match=r"pip install 'biasline\[audit\]'"):
            call()


def gate(verdict):
    [found] = [gate for gate in verdict.gates if gate.name == "signature"]
    return found


def test_the_gate_lets_in_what_is_signed_by_its_key_alone(registered_small, workspace, monkeypatch):
    monkeypatch.setattr("biasline.registry.verify._fault", lambda *_: "")
    client, record = registered_small
    private, public = make_keys(workspace)
    other, _ = make_keys(workspace, "other")
    decided = promote(client, "small", SIGNED_ONLY, "ann", "")
    assert not decided.promoted and "not signed" in gate(decided.verdict).told
    sign(client, "small", "candidate", other)
    decided = promote(client, "small", SIGNED_ONLY, "ann", "", dry_run=True)
    assert not decided.verdict.passed and "wrong key" in gate(decided.verdict).told
    sign(client, "small", record.fingerprint[:8], private)
    decided = promote(client, "small", SIGNED_ONLY, "ann", "")
    assert decided.promoted and gate(decided.verdict).told.endswith("; by key.pub.pem")
    assert run("verify", "small", "--signature", str(public)).exit_code == 0, "its own promotion breaks no signature"


def test_the_gate_wants_a_key(registered_small):
    client, _ = registered_small
    with pytest.raises(BiaslineError, match=r"key.pub.pem: no such key"):
        promote(client, "small", SIGNED_ONLY, "ann", "")
    assert not TaskPlace("small").ledger.exists()


def test_a_version_that_is_rebuilt_from_its_record_keeps_its_signature(signed, workspace):
    client, _, public = signed
    shutil.rmtree(workspace / "mlartifacts")
    assert not standing(client, champion(client), public).holds
    assert sync(client, "small")
    rebuilt = champion(client)
    assert int(rebuilt.version) == 2 and standing(client, rebuilt, public).holds
