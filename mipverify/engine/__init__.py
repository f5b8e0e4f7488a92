"""The cascade of methods that decides a question, and its verdict."""

from mipverify.engine.sample import SampleResult
from mipverify.engine.verdict import Verdict, Witness
from mipverify.engine.verify import verify

__all__ = ["SampleResult", "Verdict", "Witness", "verify"]
