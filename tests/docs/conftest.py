from __future__ import annotations

import sys
from pathlib import Path

# The documentation's code is no part of the installed package; at the end, so that the package under test stays.
sys.path.append(str(Path(__file__).parents[2]))
