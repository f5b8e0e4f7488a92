"""An independent checker of proofs about neural networks: it reads the network and the property itself."""

__version__ = "0.1.0"
