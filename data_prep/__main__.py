"""``python -m data_prep SOURCE [--source DIR] [--out TABLE]``: build a case table, or the tiny models' recipe.

Each source is a module with ``add_arguments(parser)`` and ``main(args) -> int``; only the one asked for is imported.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from mmedlite.profiles import InputError

SOURCES = {
    "phantoms": "the phantom clinic: pictures that the kit draws itself",
    "image_folder": "your own pictures: a folder with labels.jsonl, or class sub-folders",
    "vqa_rad": "VQA-RAD, yes/no questions",
    "slake": "SLAKE, closed questions in English",
    "path_vqa": "PathVQA, yes/no questions",
    "omnimedvqa": "OmniMedVQA, open-access questions",
    "mmmu": "MMMU Health & Medicine, validation questions",
    "merge": "several tables as one, some of them out of domain",
    "leaks": "pictures and questions that two splits of a table share",
    "small_base": "teach the tiny models on a table of real pictures",
    "tiny_base": "train the tiny models that the kit ships",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one source; returns its exit status, 1 for bad input (told in one message, without a traceback)."""
    listing = "\n".join(f"  {name:<13} {what}" for name, what in SOURCES.items())
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description=f"Build a case table. Sources:\n{listing}",
        epilog="python -m data_prep SOURCE --help shows the options of one source.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=SOURCES, metavar="SOURCE")
    words = list(sys.argv[1:] if argv is None else argv)
    name = parser.parse_args(words[:1]).name  # the words after it belong to the source
    module = importlib.import_module(f"data_prep.{name}")
    options = argparse.ArgumentParser(prog=f"python -m data_prep {name}", description=module.__doc__)
    module.add_arguments(options)
    try:
        return int(module.main(options.parse_args(words[1:])))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # as a full disk
        print(f"error: {error}. Fix: mend that (as by making room), and run it again; what is stored is kept", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
