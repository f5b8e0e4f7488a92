"""`python -m mipverify_check`."""

import sys

from mipverify_check.main import program

sys.exit(program())
