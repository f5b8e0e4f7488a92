"""`python -m mipverify_check`."""

import sys

from mipverify_check.main import main

sys.exit(main())
