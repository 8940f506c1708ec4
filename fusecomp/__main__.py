"""``python -m fusecomp`` is the command ``fusecomp``."""

import sys

from fusecomp.cli import main

if __name__ == "__main__":
    sys.exit(main())
