"""Load a packaged model as any user would and ask it: run by path in a process of its own, without this package.

Reads `{"uri", "rows"}` as JSON from standard input and writes the answers, as JSON, to the file named by its argument.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    import mlflow

    asked = json.load(sys.stdin)
    target = Path(sys.argv[1])
    # A copy beside the answers: MLflow loads from no folder with a % in its path.
    answers = mlflow.pyfunc.load_model(asked["uri"], dst_path=str(target.parent)).predict(asked["rows"])
    target.write_text(json.dumps(list(answers)), encoding="utf-8")
