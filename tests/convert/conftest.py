"""The converted two-reference model of the parity tests, shared."""

from tests.parity.conftest import converted, export  # noqa: F401 (fixtures)
