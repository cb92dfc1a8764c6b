"""``python -m mmedlite``."""

import sys

from mmedlite.cli import main

sys.exit(main())
