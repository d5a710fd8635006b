"""The taxonomy of the built-in sample, and the sentences of its texts.

A sentence has gaps: ``{d}`` and ``{e}`` for devices, ``{p}`` and ``{q}`` for parts, ``{f}`` and ``{g}`` for faults.
"""

from __future__ import annotations

from typing import NamedTuple

# Parts of each device, and faults of each part: verbs in the third person. Names recur under several parents.
CATALOGUE: dict[str, dict[str, tuple[str, ...]]] = {
    "Laptop": {
        "Screen": ("Flickers", "Freezes", "Cracks"),
        "Battery": ("Drains", "Swells", "Leaks"),
        "Keyboard": ("Sticks", "Rattles"),
        "Fan": ("Rattles", "Squeaks"),
        "Charger": (),
    },
    "Phone": {
        "Screen": ("Flickers", "Freezes", "Cracks"),
        "Battery": ("Drains", "Swells", "Leaks"),
        "Speaker": ("Rattles", "Crackles"),
        "Charger": (),
    },
    "Tablet": {
        "Screen": ("Flickers", "Freezes", "Cracks"),
        "Battery": ("Drains", "Swells"),
        "Keyboard": ("Sticks", "Rattles"),
    },
    "Printer": {
        "Screen": ("Flickers", "Freezes"),
        "Cartridge": ("Leaks", "Sticks"),
        "Tray": ("Sticks", "Squeaks"),
        "Fan": ("Rattles", "Squeaks"),
    },
    "Camera": {
        "Screen": ("Flickers", "Cracks"),
        "Battery": ("Drains", "Leaks"),
        "Lens": ("Sticks", "Cracks"),
    },
}


class Passage(NamedTuple):
    """One to three sentences about one or two devices.

    Both lists name paths by their gaps: ``dp ef`` ...
    """

    text: str
    labels: str  # paths of what is faulty
    fine: str = ""  # further paths that the text speaks of


# One fault, with nothing else in the way.
PLAIN = (
    Passage("The {p} of my {d}{which} {often}{f}s.", "dpf"),
    Passage("My {d}'s {p} {often}{f}s.", "dpf"),
    Passage("My {d}{which} gives me trouble: its {p} {often}{f}s.", "dpf"),
    Passage("Why does the {p} of my {d} {often}{f}?", "dpf"),
    Passage("You changed the {p} of my {d}. It still {f}s.", "dpf"),
    Passage("I cleaned my {d}'s {p}, but it does {f} again.", "dpf"),
)

# Other parts and faults of the same device.
SAME_DEVICE = (
    Passage("On my {d}, the {p} {often}{f}s. The {q} is fine.", "dpf", "dq"),
    Passage("The {q} of my {d}{which} is fine, but the {p} {often}{f}s.", "dpf", "dq"),
    Passage("It is not the {q} of my {d} that {f}s, but the {p}.", "dpf", "dqf"),
    Passage("It is the {p} of my {d} that {f}s, not the {q}.", "dpf", "dqf"),
    Passage("Since you changed the {q} of my {d}, the {p} {often}{f}s.", "dpf", "dq"),
    Passage("My {d}'s {p} no longer {f}s, but now it {often}{g}s.", "dpg", "dpf"),
    Passage("My {d}'s {p} {often}{f}s. At least it does not {g}.", "dpf", "dpg"),
    Passage("The {p} of my {d}{which} does not {f}, it {g}s.", "dpg", "dpf"),
    Passage("The {q} of my {d} used to {g}. You repaired it, but now the {p} {often}{f}s.", "dpf", "dqg"),
    Passage("Of the {q} and the {p} of my {d}{which}, only the second {f}s.", "dpf", "dqf"),
)

# Other devices.
OTHER_DEVICE = (
    Passage("The {p} of my {e} is fine, but that of my {d} {often}{f}s.", "dpf", "ep"),
    Passage("The {p} of my {d} {often}{f}s, that of my {e} does not.", "dpf", "epf"),
    Passage("My {d}'s {p} {often}{f}s, unlike the {e}'s.", "dpf", "epf"),
    Passage("Unlike my {e}'s {p}, the {d}'s {f}s.", "dpf", "epf"),
    Passage("My {e}{which} is fine. My {d} is not, its {p} {often}{f}s.", "dpf", "e"),
    Passage("The {q} of my {e} is fine, but the {p} of my {d} {often}{f}s.", "dpf", "eq"),
    Passage("You repaired my {e}, whose {q} did {g}. Now the {p} of my {d} {often}{f}s.", "dpf", "eqg"),
    Passage("My {d}'s {p} {often}{f}s. My {e}'s {q} no longer {g}s, thanks to you.", "dpf", "eqg"),
    Passage("I have a {d} and a {e}. The {p} of the first {often}{f}s, the second is fine.", "dpf", "e"),
)

# Several faults.
SEVERAL = (
    Passage("The {p} of my {d}{which} {often}{f}s, and the {q} {g}s.", "dpf dqg"),
    Passage("The {p} of my {d} {f}s and {often}{g}s.", "dpf dpg"),
    Passage("Both the {p} and the {q} of my {d} {often}{f}.", "dpf dqf"),
    Passage("The {p} of my {d} {often}{f}s, and so does that of my {e}.", "dpf epf"),
    Passage("My {d}'s {p} {often}{f}s, my {e}'s {q} {g}s.", "dpf eqg"),
    Passage("I have a {d} and a {e}. The {p} of the first {f}s, the {q} of the second {g}s.", "dpf eqg"),
    Passage("I have a {e} and a {d}. The {p} of the second {f}s, the {q} of the first {g}s.", "dpf eqg"),
)

# Paths that end early: nothing is said about the fault, or about the part.
EARLY = (
    Passage("Something is wrong with the {p} of my {d}.", "dp"),
    Passage("My {d}'s {p} is faulty, although it does not {f}.", "dp", "dpf"),
    Passage("My {e}'s {p} is fine, but the {d}'s is faulty.", "dp", "ep"),
    Passage("The {p} of my {d}{which} is faulty, the {q} is fine.", "dp", "dq"),
    Passage("My {d}{which} is faulty. It is not the {p}, and the {q} does not {f}.", "d", "dp dqf"),
    Passage("My {d} is faulty, my {e} is fine.", "d", "e"),
    Passage("My {d}{which} is faulty, and the {p} of my {e} {often}{f}s.", "d epf"),
)

KINDS = (PLAIN, SAME_DEVICE, OTHER_DEVICE, SEVERAL, EARLY)
ADJECTIVES = ("new", "black", "white", "small")
OFTEN = ("often", "always", "sometimes")
WHICH = ("which I bought in May", "which is two years old", "which I need at work")
OPENINGS = ("Hello.", "Good morning.", "Please help.")
CLOSINGS = ("Thank you.", "What can I do?", "Best wishes.")
