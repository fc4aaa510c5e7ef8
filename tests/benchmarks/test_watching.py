"""What `biasline watch` sees, measured on few weeks."""

from benchmarks import watching


def test_each_part_measures_what_it_tells():
    assert watching.quiet(10) <= 2
    assert watching.found(watching.CHANGES["another language"], 300, 3) == 1
    named, others = watching.one_tenant(1)
    assert named == 1 and others <= 3
    assert 0 < watching.seconds(500) < 60
