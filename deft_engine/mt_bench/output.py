"""What a judging stage leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from deft_engine.canonical import canonical_json
from deft_engine.run import StageContext
from deft_engine.stages import JudgeSpec


def write_judgments(
    context: StageContext[JudgeSpec], rows: Iterable[Mapping[str, Any]], results: Mapping[str, Any]
) -> None:
    """Write ``judgments.jsonl``, a row for each judgment, and ``mt_bench.json``."""
    with (context.out / "judgments.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    (context.out / "mt_bench.json").write_bytes(canonical_json(results))
