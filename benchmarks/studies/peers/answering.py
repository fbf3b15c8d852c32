"""Answers for a peer, under an interpreter that has it: ``python answering.py MODULE ARGUMENT…``.

MODULE is a neighbour of this file, and its ``Peer`` is made with the arguments. Commands come in as lines of JSON on
stdin, ``{method: arguments}``; answers go out as lines of JSON on stdout. Whatever libraries print goes to stderr.
Neither this nor such a module knows anything of this package.
"""

import importlib
import json
import os
import sys


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = importlib.import_module(sys.argv[1])
    sys.path.pop(0)  # the folder of this file: peers import modules by names that it may have too
    peer = module.Peer(*sys.argv[2:])
    for line in sys.stdin:
        ((command, arguments),) = json.loads(line).items()
        try:
            answer = getattr(peer, command)(**arguments)
        except Exception as error:  # told to whoever asked, whatever it is
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
