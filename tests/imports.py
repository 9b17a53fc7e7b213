"""The project's folder and its imports, for tests that look at the code."""

from kd3_stages.code import PACKAGES, ROOT, code_of, executed_files, imported_modules

__all__ = ["PACKAGES", "ROOT", "code_of", "executed_files", "imported_modules"]
