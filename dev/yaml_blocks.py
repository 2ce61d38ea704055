"""Write the YAML files that the documentation shows into a folder, where `make workflows` checks them."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.helpers.pages import blocks_of


def main(folder: Path) -> None:
    for block in blocks_of("yaml"):
        file = folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
