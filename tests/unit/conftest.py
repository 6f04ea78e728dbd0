"""Fixtures of single files' own that several files use."""

from tests.unit.oracle_kit import oracle

__all__ = ["oracle"]
