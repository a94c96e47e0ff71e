"""Kill a tiny run at random moments of all its stages: python -m tests.slow.kills [N] [--fresh]

Every kill is a SIGKILL of the real command, and the same command is started again. Where a stage comes to its end, and when
the run is finished, all that was made is compared with what an undisturbed run has made, bit by bit.

What was done stands in build/kills/kills.json: a run that was stopped goes on there, and a larger N adds kills. The exit
code is 0 where the run ended as an undisturbed one, 1 where anything is another.
"""

import argparse
import shutil
import sys

from tests.conftest import ROOT
from tests.slow.killing import Campaign

FOLDER = ROOT / "build" / "kills"


def main(argv=None):
    """Kill, print the table, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kills", nargs="?", type=int, default=100, help="how many kills; default: 100")
    parser.add_argument("--fresh", action="store_true", help="begin anew")
    asked = parser.parse_args(argv)
    if asked.fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    campaign = Campaign(FOLDER, asked.kills, say=lambda line: print(line, flush=True))
    campaign.run()
    print("\n" + "\n".join(campaign.table()))
    for fault in campaign.faults():
        print(fault, file=sys.stderr)
    return 1 if campaign.faults() else 0


if __name__ == "__main__":
    sys.exit(main())
