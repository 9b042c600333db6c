"""The command line without an installed command: `python -m condgan`."""

import sys

from condgan.cli import main

if __name__ == "__main__":
    sys.exit(main())
