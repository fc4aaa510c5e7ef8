"""Load a packaged model as any user would and ask it: run by path in a process of its own, without this package.

Reads `{"uri", "rows"}` as JSON from standard input and writes the answers, as JSON, to the file that it is told.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    import mlflow

    asked = json.load(sys.stdin)
    answers = mlflow.pyfunc.load_model(asked["uri"]).predict(asked["rows"])
    Path(sys.argv[1]).write_text(json.dumps(list(answers)), encoding="utf-8")
