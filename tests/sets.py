"""The paper's five sets in small, in the schema of their hub pages: written here, not copied."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def encoded(seed: int, size: tuple[int, int] = (24, 20), kind: str = "PNG", mode: str = "RGB") -> bytes:
    """A picture of noise, as a file."""
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).convert(mode)
    picture.save(content := io.BytesIO(), kind)
    return content.getvalue()


def image(seed: int) -> dict[str, Any]:
    return {"bytes": encoded(seed), "path": None}


def parquet(file: Path, rows: list[dict[str, Any]], images: tuple[str, ...] = ("image",)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        name: pa.array([r.get(name) for r in rows], IMAGE if name in images else None) for name in dict.fromkeys(k for r in rows for k in r)
    }
    pq.write_table(pa.table(columns), file)


def make_rad(tmp_path: Path) -> Path:
    def row(seed: int, question: str, answer: Any) -> dict[str, Any]:
        return {"image": image(seed), "question": question, "answer": answer}

    train = [row(i, f"is it {i}?", "yes" if i % 2 else "no") for i in range(20)]
    parquet(
        tmp_path / "rad" / "data" / "train-00000-of-00001-eb88.parquet", [*train, row(0, "what is it?", "a mass"), row(0, "Is it 0? ", "No")]
    )
    parquet(tmp_path / "rad" / "data" / "test-00000-of-00001-e5bc.parquet", [row(0, "is it old?", "Yes"), row(30, "is it new?", "no")])
    return tmp_path / "rad"


def make_path(tmp_path: Path) -> Path:
    def row(seed: int, question: str, answer: str) -> dict[str, Any]:
        return {"image": image(seed), "question": question, "answer": answer}

    files = {"train-00000-of-00002": [row(0, "is it?", "yes"), row(0, "Is it?", "yes"), row(1, "what?", "necrosis")],
             "train-00001-of-00002": [row(2, "is it?", "no"), row(9, "is it red?", "no")],
             "validation-00000-of-00001": [row(5, "is it?", "no")], "test-00000-of-00001": [row(9, "is it?", "yes")]}  # fmt: skip
    for name, rows in files.items():
        parquet(tmp_path / "path" / "data" / f"{name}.parquet", rows)
    return tmp_path / "path"


def slake_row(
    qid: int, question: str, answer: str, kind: str = "CLOSED", lang: str = "en", content: str = "Size", picture: int = 0
) -> dict[str, Any]:
    return {"img_id": picture, "img_name": f"xmlab{picture}/source.jpg", "question": question, "answer": answer, "q_lang": lang,
            "location": "Lung", "modality": "X-Ray", "answer_type": kind, "base_type": "vqa", "content_type": content,
            "triple": ["vhead", "_", "_"], "qid": qid}  # fmt: skip


SLAKE = {
    "train": [slake_row(0, "Is it a lung?", "Yes", picture=0), slake_row(1, "Bigger, lung or heart?", "Lung"), slake_row(2, "Which?", "Liver"),
              slake_row(3, "What is it?", "a mass", "OPEN"), slake_row(4, "这是肺吗?", "是", lang="zh"), slake_row(5, "Which?", "Heart")],
    "validation": [slake_row(6, "Is it a heart?", "no", picture=1), slake_row(7, "Which?", "Lung", picture=1)],
    "test": [slake_row(8, "Is it?", "yes ", picture=2), slake_row(9, "Which is bigger, kidney or liver?", "Liver", picture=2),
             slake_row(10, "Which organ is abnormal, heart or lung?", "Both", picture=2),
             slake_row(11, "Is it T1?", "T1", content="Modality", picture=2), {"qid": 12}],
}  # fmt: skip


def make_slake(tmp_path: Path, kind: str = "folder") -> Path:
    folder = tmp_path / "slake"
    folder.mkdir()
    for name, rows in SLAKE.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    pictures = {f"xmlab{i}/source.jpg": encoded(i, kind="JPEG") for i in range(3)}
    if kind == "folder":
        for name, content in pictures.items():
            (folder / "imgs" / name).parent.mkdir(parents=True)
            (folder / "imgs" / name).write_bytes(content)
    else:
        with zipfile.ZipFile(folder / "imgs.zip", "w") as archive:
            for name, content in pictures.items():
                archive.writestr(f"imgs/{name}" if kind == "archive" else name, content)
    return folder


def omni_row(number: int, modality: str, gold: str = "Yes", **more: Any) -> dict[str, Any]:
    row = {"dataset": "Made", "question_id": f"Made_{number:04d}", "question_type": "Disease Diagnosis", "question": "Is it?",
           "gt_answer": gold, "image_path": f"Images/Made/{number}.png", "option_A": "Yes", "option_B": "No", "option_C": "Perhaps",
           "modality_type": modality}  # fmt: skip
    return {**row, **more}


OMNI = [
    omni_row(0, "CT(Computed Tomography)"), omni_row(1, "MR (Mag-netic Resonance Imaging)"), omni_row(2, "Microscopy Images"),
    omni_row(3, "X-Ray"),
    omni_row(4, "ultrasound", "No"), omni_row(5, "OCT (Optical Coherence Tomography"), omni_row(6, "Colposcopy"), omni_row(7, "CT", "Never"),
    {k: v for k, v in omni_row(8, "CT").items() if k != "modality_type"} | {"modality": "X-Ray"}, omni_row(9, "CT", option_B=""),
    omni_row(10, "CT", image_path="Images/Made/gone.png"), omni_row(11, "CT", image_path="../../etc/passwd.png"), omni_row(0, "CT"),
]  # fmt: skip


def make_omni(tmp_path: Path, kind: str = "archive") -> Path:
    folder = tmp_path / "omni"
    pictures = {f"Images/Made/{i}.png": encoded(i) for i in range(10)}
    if kind == "archive":
        folder.mkdir()
        with zipfile.ZipFile(folder / "OmniMedVQA.zip", "w") as archive:
            archive.writestr("OmniMedVQA/QA_information/Open-access/Made.json", json.dumps(OMNI))
            archive.writestr("OmniMedVQA/QA_information/Restricted-access/Other.json", "[")
            for name, content in pictures.items():
                archive.writestr(f"OmniMedVQA/{name}", content)
    else:
        (folder / "QA_information" / "Open-access").mkdir(parents=True)
        (folder / "QA_information" / "Open-access" / "Made.json").write_text(json.dumps(OMNI))
        (folder / "Images" / "Made").mkdir(parents=True)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
    return folder


SUBJECTS = ("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy", "Public_Health")
PICTURES = tuple(f"image_{i}" for i in range(1, 8))


def mmmu_row(name: str, **more: Any) -> dict[str, Any]:
    row = {"id": f"validation_{name}", "question": "What is <image 1>?", "options": "['a cell', \"the patient's bone\", 'no idea']",
           "explanation": "", "answer": "B", "img_type": "['Pathological Images']", "topic_difficulty": "Easy",
           "question_type": "multiple-choice", "subfield": "Histology", **dict.fromkeys(PICTURES)}  # fmt: skip
    return {**row, "image_1": image(len(name)), **more}


def make_mmmu(tmp_path: Path) -> Path:
    rows = [mmmu_row("1"), mmmu_row("22", image_2=image(7), img_type="['Body Scans: MRI, CT scans, and X-rays', 'Tables']"),
            mmmu_row("333", question_type="open", options="[]", answer="4"), mmmu_row("4444", options="a cell, a bone"),
            mmmu_row("55555", answer="D"), mmmu_row("666666", img_type="['Tables']"), mmmu_row("7777777", image_1=None)]  # fmt: skip
    for number, subject in enumerate(SUBJECTS):
        part = [row | {"id": f"validation_{subject}_{i}"} for i, row in enumerate(rows if not number else rows[:1])]
        parquet(tmp_path / "mmmu" / subject / "validation-00000-of-00001.parquet", part, PICTURES)
    return tmp_path / "mmmu"
