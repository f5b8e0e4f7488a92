"""What the exit codes mean."""

DONE = 0  # the property holds, or the command did its work
VIOLATED = 1  # a counterexample was found and replayed
BAD_INPUT = 2  # bad usage or bad input
UNDECIDED = 3  # the limits were reached first
INTERNAL = 4  # a fault of this program

OF_VERDICT = {"holds": DONE, "violated": VIOLATED, "unknown": UNDECIDED}
