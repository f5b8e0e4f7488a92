"""Proofs as files that another program can check (docs/proof-format.md)."""

from mipverify.proof_file.file import Proof, UnprovableError
from mipverify.proof_file.writer import Ground, require_provable, write_proof

__all__ = ["Ground", "Proof", "UnprovableError", "require_provable", "write_proof"]
