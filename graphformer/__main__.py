"""``python -m graphformer`` is the command ``graphformer``."""

import sys

from graphformer.cli.main import main

sys.exit(main())
