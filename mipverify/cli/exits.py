"""What the exit codes mean. 1 is never used: Python, libraries and shells end with it when something went wrong."""

DONE = 0  # the property holds, or the command did its work
BAD_INPUT = 2  # bad usage or bad input
UNDECIDED = 3  # the limits were reached first
INTERNAL = 4  # a fault of this program
VIOLATED = 10  # a counterexample was found and replayed

OF_VERDICT = {"holds": DONE, "violated": VIOLATED, "unknown": UNDECIDED}
