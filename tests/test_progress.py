"""What a long step shows."""

import io

from biasline.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_step_within_a_step_takes_the_bars_place(monkeypatch):
    """A terminal shows one bar at a time, and rich refuses a second."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with progress("outer", 3) as outer:
        outer.at(1)
        with progress("inner", 2) as inner:
            outer.at(2)
            inner.at(2)
        outer.at(3)
    with progress("again", 1) as again:
        again.at(1)
    for what in ("outer", "inner", "again"):
        assert what in terminal.getvalue()


def test_a_log_has_a_line_at_the_end(capsys):
    with progress("step", 3) as shown:
        shown.at(1)
        shown.at(3, "loss 1.0")
    assert capsys.readouterr().out == "step 3/3, 0 s left, loss 1.0\n"
