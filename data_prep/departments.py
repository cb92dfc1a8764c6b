"""Which department reads which modality. A modality that is not in this table gets no department: never a guess.

The paper takes its triage label from "image-modality information" and gives one example (PathVQA -> Pathologist); its
two other training sets are radiology sets. Every other row is this kit's choice and says why.
"""

from __future__ import annotations

import re

# canonical modality -> (department, other names in use)
TABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    # Radiologist: VQA-RAD and SLAKE, the paper's radiology sets, hold X-ray, CT and MRI
    "X-ray": ("Radiologist", ("xray", "cr", "dx", "radiograph", "radiography", "chest x-ray", "cxr")),
    "CT": ("Radiologist", ("computed tomography", "ct scan")),
    "MRI": ("Radiologist", ("mr", "magnetic resonance imaging", "mri scan")),
    # sets that do not say which of them a picture is: VQA-RAD names the body part, MMMU "body scans"
    "Radiology": ("Radiologist", ("body scans: mri, ct scans, and x-rays",)),
    # a radiograph of the breast
    "Mammography": ("Radiologist", ("mammogram", "mg")),
    # general ultrasound is reported by radiology, OmniMedVQA counts it among the radiological modalities ...
    "Ultrasound": ("Radiologist", ("us", "ultrasonography", "sonography", "breast ultrasound", "abdominal ultrasound")),
    # ... but thyroid ultrasound is the endocrinologist's own tool, and the phantom clinic's look for that department
    "Thyroid ultrasound": ("Endocrinologist", ("ultrasound thyroid", "thyroid us")),
    # most PET is done to stage cancer; the phantom clinic's look for that department. Other nuclear medicine
    # (bone, heart, kidney scans) has no department among the seven and is left out
    "PET": ("Oncologist", ("pt", "positron emission tomography", "pet ct", "fdg pet")),
    # the paper's own example: pathology slides -> Pathologist
    "Histopathology": (
        "Pathologist",
        ("histology", "pathology", "histopathology slide", "immunohistochemistry", "ihc", "pathological images"),
    ),
    # blood smears and cells are read in the pathology laboratory
    "Microscopy": ("Pathologist", ("microscopy images", "microscopy image", "microscopic images", "blood smear", "cytology")),
    # of the seven, surgery is the one that works through the scope; the phantom clinic's look for that department
    "Endoscopy": ("Surgeon", ("colonoscopy", "gastroscopy", "laparoscopy", "gastrointestinal endoscopy")),
    # pictures of the back of the eye; OCT in the public question sets is retinal
    "Fundus photography": ("Ophthalmologist", ("fundus", "fundus image", "retinal photography", "color fundus")),
    "OCT": ("Ophthalmologist", ("optical coherence tomography", "retinal oct")),
    # of the retina, by the machines that take OCT (OmniMedVQA's sources of it show the eye)
    "Infrared reflectance imaging": ("Ophthalmologist", ()),
    # pictures of the skin
    "Dermoscopy": ("Dermatologist", ("dermatoscopy", "dermoscopic image", "skin lesion photography")),
}

# modalities of the public sets that none of the seven departments reads, or that do not say enough: they are listed, not sent anywhere
LEFT_OUT = {
    "Colposcopy": "gynaecology is none of the seven",
    "Digital Photography": "OmniMedVQA means teeth, skin and eyes alike",
    "Medical Images": "MMMU's name for pictures of any kind",
}


def _key(name: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", name.casefold()))


_NAMES = {_key(name): canonical for canonical, (_, others) in TABLE.items() for name in (canonical, *others)}


def look_up(modality: str) -> tuple[str, str | None]:
    """(canonical modality, department) for a modality as a data set writes it; the text itself and None if unknown.

    The whole name is tried first, then what stands before a bracket: "CR (X-ray)" -> ("X-ray", "Radiologist"),
    "Ultrasound (thyroid)" -> ("Thyroid ultrasound", "Endocrinologist"), "NM" -> ("NM", None).
    """
    for name in (modality, modality.split("(")[0]):
        canonical = _NAMES.get(_key(name))
        if canonical:
            return canonical, TABLE[canonical][0]
    return modality.strip() or "unknown", None
