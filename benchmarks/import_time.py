"""What importing the runtime costs, in new processes: ``python -m uflow_edge.benchmarks.import_time``."""

import subprocess
import sys
from functools import partial

from uflow_edge.benchmarks.timing import interleaved_medians

ROUNDS = 15
STATEMENTS = {
    "python alone": "pass",
    "import uflow_edge.runtime": "import uflow_edge.runtime",
    "from uflow_edge.runtime import Inspector": "from uflow_edge.runtime import Inspector",
}


def main() -> None:
    """Print medians."""
    contenders = {
        name: partial(subprocess.run, [sys.executable, "-c", statement], check=True)
        for name, statement in STATEMENTS.items()
    }
    for name, milliseconds in interleaved_medians(contenders, ROUNDS).items():
        print(f"{name:42} {milliseconds:7.0f} ms")


if __name__ == "__main__":
    main()
