"""Where things lie."""

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"
RESULTS = ROOT / "benchmarks" / "results"
