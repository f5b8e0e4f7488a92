"""`python -m mipverify`: the command line, where its script is not on the path."""

import os
import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The working directory stands first on the path: what lies there must not be taken for a library of ours.
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-P", *sys.orig_argv[1:]])
    from mipverify.cli.main import main

    sys.exit(main())
