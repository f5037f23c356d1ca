"""`python -m peftkit` is `peftkit`."""

import sys

from peftkit.cli import main

sys.exit(main())
