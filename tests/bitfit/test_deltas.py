"""Deltas of tenants in a folder, in one archive, and behind one model."""

import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from biasline.bitfit import Bank, BiasDelta, Deltas, Tenants, tune_biases
from biasline.bitfit.asked import batch_of
from biasline.bitfit.deltas import INDEX, file_of, pack, write_index
from biasline.errors import BiaslineError

NAMES = ("a shop", "a/b\\..", "🍕", "x" * 300)
IDS = torch.arange(2, 12).view(1, 10)


def delta_with(model, value):
    """One that shifts all biases."""
    tuning = tune_biases(model, "all")
    with torch.no_grad():
        for master in tuning.masters:
            master += value
    tuning.write()
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    return delta


@pytest.fixture
def shared(bloom):
    return delta_with(bloom, 0.5)


@pytest.fixture
def folder(tmp_path, bloom):
    for number, name in enumerate(NAMES):
        delta_with(bloom, 0.1 * (number + 1)).save(tmp_path / file_of(name))
    write_index(tmp_path, NAMES, ["small", "later"])
    return tmp_path


def test_a_folder_and_its_archive_hold_the_same(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("packed") / "tenants.zip"
    pack(folder, target)
    for deltas in (Deltas(folder), Deltas(target)):
        assert len(deltas) == 6 and deltas.shared == {"small", "later"} and set(deltas.own) == set(NAMES)
        assert NAMES[1] in deltas and "small" in deltas and "other" not in deltas
        for name in NAMES:
            assert deltas.file(name) == (folder / file_of(name)).read_bytes()
            again = deltas.load(name)
            again.save(target.with_name("again"))
            assert target.with_name("again").read_bytes() == deltas.file(name)
        with pytest.raises(BiaslineError, match="tenant 'small': no delta of its own"):
            deltas.load("small")


def test_equal_folders_give_equal_archives(folder, tmp_path_factory):
    one, other = (tmp_path_factory.mktemp("packed") / "tenants.zip" for _ in range(2))
    pack(folder, one)
    (folder / INDEX).touch()
    pack(folder, other)
    assert one.read_bytes() == other.read_bytes()


def test_what_is_no_such_place_is_told(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(BiaslineError, match=r"no deltas of tenants there: .*index\.json"):
        Deltas(other)
    (other / "cut.zip").write_bytes(b"PK")
    with pytest.raises(BiaslineError, match=r"cut\.zip: no deltas of tenants there"):
        Deltas(other / "cut.zip")
    with zipfile.ZipFile(other / "odd.zip", "w") as archive:
        archive.writestr(INDEX, "[]")
    with pytest.raises(BiaslineError, match=r"odd\.zip: no deltas of tenants there"):
        Deltas(other / "odd.zip")
    (folder / file_of("🍕")).unlink()
    with pytest.raises(BiaslineError, match="delta of '🍕': .*No such file"):
        Deltas(folder).file("🍕")


def logits(model, places=(0,)):
    with torch.inference_mode(), batch_of(places):
        return model(IDS.expand(len(places), -1)).logits


def test_each_row_is_answered_by_its_tenants_delta(bloom, shared, folder):
    alone = {}
    for name, delta in [*((name, Deltas(folder).load(name)) for name in NAMES), ("small", shared)]:
        with delta.applied(bloom):
            alone[name] = logits(bloom)[0]
    plain = logits(bloom)
    tenants = Tenants(bloom, shared, Deltas(folder))
    rows = ["🍕", "small", "a shop", "later", "🍕"]
    with tenants.asked(rows):
        # Batches take rows in any order.
        found = logits(bloom, (4, 1, 2, 3, 0))
        assert torch.allclose(logits(bloom, (2,))[0], alone["a shop"], atol=1e-5)
    for answer, name in zip(found, ("🍕", "small", "a shop", "small", "🍕"), strict=True):
        assert torch.allclose(answer, alone[name], atol=1e-5)
    assert torch.equal(logits(bloom), plain)


def test_those_that_were_asked_last_are_held(bloom, shared, folder, monkeypatch):
    read = []
    load = Deltas.load
    monkeypatch.setattr(Deltas, "load", lambda self, name: read.append(name) or load(self, name))
    tenants = Tenants(bloom, shared, Deltas(folder), slots=2)
    one, two, three, _ = NAMES

    def ask(*names):
        with tenants.asked(names):
            return logits(bloom, range(len(names)))

    first = ask(one, two)
    ask(one)
    assert read == [one, two]
    mixed = ask(three, one)
    assert read == [one, two, three]
    assert torch.equal(mixed[1], first[0]) or torch.allclose(mixed[1], first[0], atol=1e-6)
    assert torch.allclose(ask(two)[0], first[1], atol=1e-5)
    assert read == [one, two, three, two]
    with pytest.raises(BiaslineError, match="a batch of 3 tenants, there are 2 slots"):
        ask(one, two, three)
    # Of a long list each batch finds room.
    with tenants.asked([one, two, three]):
        found = [logits(bloom, (place,))[0] for place in range(3)]
    assert torch.allclose(found[0], first[0], atol=1e-5) and torch.allclose(found[2], mixed[0], atol=1e-5)


def test_a_delta_that_cannot_be_put_takes_nobodys_place(bloom, shared, folder, monkeypatch):
    tenants = Tenants(bloom, shared, Deltas(folder), slots=2)
    one, two, three, four = NAMES

    def ask(*names):
        with tenants.asked(names):
            return logits(bloom, range(len(names)))

    expected = {name: ask(name)[0] for name in NAMES}
    put = Bank.put
    with monkeypatch.context() as patch:
        patch.setattr(Bank, "put", lambda *_: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                ask(one)
    assert put is Bank.put
    for name in (three, four, two, one, three):
        assert torch.allclose(ask(name)[0], expected[name], atol=1e-5)


def test_threads_get_their_own_answers(bloom, shared, folder):
    tenants = Tenants(bloom, shared, Deltas(folder), slots=2)

    def ask(name):
        with tenants.asked([name]):
            return logits(bloom)[0]

    expected = {name: ask(name) for name in NAMES}
    with ThreadPoolExecutor(4) as pool:
        asked = [name for _ in range(10) for name in NAMES]
        for name, found in zip(asked, pool.map(ask, asked), strict=True):
            assert torch.allclose(found, expected[name], atol=1e-5)


def test_a_tenant_that_is_not_known_is_an_error_unless_allowed(bloom, shared, folder):
    with (
        pytest.raises(BiaslineError, match=r"tenant 'new', 'A shop': not among the 6 .*tenants\.unknown: shared"),
        Tenants(bloom, shared, Deltas(folder)).asked(["a shop", "new", "A shop"]),
    ):
        pass
    with Tenants(bloom, shared, Deltas(folder), unknown=True).asked(["new", "small"]):
        found = logits(bloom, (0, 1))
    assert torch.allclose(found[0], found[1], atol=1e-6)
