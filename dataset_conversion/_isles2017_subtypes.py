"""Which subtype the training cases of ISLES 2017 are of, as published with the DeepMedic study of these data.

Pérez Malla, Valdés Hernández, Rachmadi, Komura, Frontiers in Neuroinformatics 13:33 (2019); the lists are facts of its
first author's repository, CarlosUziel/ischleseg.
"""

from __future__ import annotations

NUMBERS = {
    "lacunar_subcortical": (6, 9, 10, 11, 12, 19, 35, 39, 40, 42),
    "small_cortical": (1, 2, 15, 21, 28, 37, 41),
    "big_cortical_main_artery": (
        4,
        5,
        7,
        8,
        13,
        14,
        16,
        18,
        20,
        22,
        23,
        24,
        26,
        27,
        30,
        31,
        32,
        33,
        36,
        38,
        43,
        44,
        45,
        46,
        47,
        48,
    ),
}
"""Of the folders ``training_N``, by subtype."""

SUBTYPES = {f"training_{number}": subtype for subtype, numbers in NUMBERS.items() for number in numbers}
"""Case to subtype."""
