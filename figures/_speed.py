"""What was measured of speed and memory, as Markdown for ``docs/measured.md``: a GRPO step, a run on one GPU, the store of answers."""

from __future__ import annotations

import json
from pathlib import Path


def engine(data: Path) -> list[str]:
    """A GRPO step beside stock TRL: seconds, ratio, agreement; and what was not measured."""
    if not (data / "grpo_speed.json").exists():
        return ["\nHow fast a GRPO step is beside stock TRL: not stored yet (`python -m figures.grpo_speed`)."]
    found = json.loads((data / "grpo_speed.json").read_text(encoding="utf-8"))
    made = found.pop("made_from")
    lines = [
        "\n## How fast a GRPO step is\n",
        f"Against stock TRL {made['trl']} (alternating runs, {made['threads']} thread, same rows, LoRA on both sides; medians of "
        f"{next(iter(found.values()))['n']} steps, ratios of as many pairs, without what the kit measures every ten; {made['device']}, "
        f"torch {made['torch']}):\n",
        "| step | stock TRL | all sharing | features once alone | prompts once alone | no sharing | all sharing: times as fast | no sharing |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, m in found.items():
        told = " | ".join(f"{m['seconds'][s]:.3f} s" for s in ("stock", "ours", "features", "prompts", "off"))
        lines.append(f"| {name} | {told} | {m['ratio']['ours']:.2f} | {m['ratio']['off']:.2f} |")
    agree = [a for m in found.values() for a in m["agreement"]]
    same, n = sum(a["same_completions"] for a in agree), len(agree)
    lines.append(
        f"\nThe first step of each of {n} runs: the same completions in {same}, loss within {max(a['loss_difference'] for a in agree):.1g}, "
        f"gradient of every weight within {max(a['max_error'] for a in agree):.1g} (relative), cosine at least "
        f"{min(a['min_cosine'] for a in agree):.7f}. `figures/data/grpo_cost.json` holds seconds, memory and the share of each phase against "
        "G, image tokens, completion length and prompts a step."
    )
    lines += [_shape(shape, data / f"grpo_speed_{shape}.json") for shape in ("3b", "7b")]
    return lines


def _shape(shape: str, file: Path) -> str:
    """The speed of a step of a Qwen2.5-VL of that shape on a GPU."""
    if not file.exists():
        return f"\nThe {shape.upper()} shape on a GPU: not measured (`python -m figures.grpo_speed --shape {shape}`)."
    found = json.loads(file.read_text(encoding="utf-8"))
    m, made = found[shape], found["made_from"]
    alike = sum(a["same_completions"] for a in m["agreement"])
    return (
        f"\nThe {shape.upper()} shape with random weights, bf16 and LoRA, on one {made['device']} ({made['date']}, torch {made['torch']}, "
        f"transformers {made['transformers']}), {m['prompts_per_step']} prompt a step, 8 rollouts of {m['completion_tokens']} tokens, gradient "
        f"checkpointing {'on' if m['gradient_checkpointing'] else 'off'}: stock TRL {m['seconds']['stock']:.1f} s and "
        f"{m['peak_gib']['stock']:.1f} GiB, all sharing {m['seconds']['ours']:.1f} s and {m['peak_gib']['ours']:.1f} GiB a step, "
        f"{m['ratio']['ours']:.2f} times as fast (medians of {m['n']} steps). The two sides sampled the same completions in {alike} of "
        f"{len(m['agreement'])} runs{'' if alike else ', so their gradients are not compared'}."
    )


def stages(data: Path) -> list[str]:
    """What each stage of a run takes on one GPU, by shape; "not measured" where it was not."""
    lines = ["\n## A whole run on one GPU\n", "Random weights of the hub's shapes, real pictures, simulated specialists.\n",
             "| shape | stage | seconds | peak, GiB | n | where |", "|---|---|---|---|---|---|"]  # fmt: skip
    for shape in ("3b", "7b"):
        if not (file := data / f"gpu_stages_{shape}.json").exists():
            command = f"python -m figures.gpu_stages --shape {shape} --cases TABLE"
            lines.append(f"| {shape.upper()} | every stage | not measured: `{command}` | | | |")
            continue
        found = json.loads(file.read_text(encoding="utf-8"))
        made, size = found["made_from"], f"{found['prompts']} x {found['rollouts']} x {found['tokens']}"
        for row in found["stages"]:
            what = f"evaluation, in all, {found['cases']}" if row["stage"] == "evaluation" else f"{row['stage']}, an update of {size} tokens"
            where = f"{made['device']}, {made['date']}"
            lines.append(f"| {shape.upper()} | {what} | {row['seconds']:.1f} | {row['peak_gib']:.1f} | {row['n']} | {where} |")
    lines.append("\nThe seven notebooks at profile `tiny`, as they are, on a GPU: ")
    if not (file := data / "gpu_notebooks.json").exists():
        lines[-1] += "not measured (`python -m figures.gpu_notebooks`)."
        return lines
    found = json.loads(file.read_text(encoding="utf-8"))
    lines[-1] += (f"{found['compared']} cells print what they print on a CPU, {found['failed']} do not, in {found['seconds']:.0f} s "
                  "({device}, {date}).".format(**found["made_from"]))  # fmt: skip
    return lines


def store(data: Path) -> list[str]:
    """How fast and how safe the store of answers is."""
    files = [data / f"store_{name}.json" for name in ("speed", "fill")]
    if not all(file.exists() for file in files):
        return ["\nThe store of answers: not measured yet (`python -m figures.store_speed`, `python -m figures.store_fill`)."]
    speed, fill = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    put, get, lines, whole = speed["put"], speed["get"]["us"], speed["open"]["filled"], fill["fill"]
    peer = f"{get['diskcache']:.0f} us with diskcache" if "diskcache" in get else f"{get['dict']:.0f} us with a dict of JSON text"
    kills, faults = fill["kills"], fill["faults"]
    return [
        "\n## The store of answers\n",
        "| what | measured |", "|---|---|",
        f"| durable put of a 1.6 KB answer | {put['ms']['ours']:.2f} ms, {put['ratio']:.2f} times a plain line with fsync (n {put['n']}) |",
        f"| in batches | {put['ms']['batch']:.3f} ms an answer (n {put['n']}) |",
        f"| get from a loaded store | {get['ours']:.0f} us; {peer} (n {speed['get']['n']}) |",
        f"| open {speed['open']['answers']:,} answers | {lines['s']:.2f} s, {lines['mib']:.0f} MiB (n {speed['open']['n']}) |",
        f"| fill {whole['answers']:,} answers at {whole['latency_s']:g} s each, {whole['concurrency']} at once | {whole['s']:.1f} s, "
        f"{whole['share']:.0%} of the ideal's pace (n {whole['n']}) |",
        f"| SIGKILL at {kills['n']} random moments of a fill ({kills['killed_midway']} midway) | of {kills['acknowledged']:,} answers told "
        f"{kills['lost']} lost, {kills['asked_twice']} asked twice; {kills['under_way_asked_again']} under way asked again; "
        f"{kills['torn_lines']} torn lines, {kills['torn_taken']} accepted |",
        f"| a server with {sum(faults['faults'].values()) / faults['requests']:.0%} faults | {faults['arrived']:,} of {faults['answers']:,} "
        f"answers arrived, {faults['faulty_stored']} faulty ones stored, budget exceeded {faults['exceeded']} times (n {faults['n']}) |",
    ]  # fmt: skip
