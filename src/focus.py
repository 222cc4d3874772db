"""Alias of crop.py under its old name: the same options, the same files."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).with_name("crop.py")), run_name="__main__")
