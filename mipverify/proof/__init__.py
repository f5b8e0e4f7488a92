"""The kernel: facts about a network over an input set, and the only code that concludes them."""
