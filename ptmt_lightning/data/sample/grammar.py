"""The taxonomy of the built-in sample, and the sentences of its texts.

A sentence has gaps: ``{d}`` and ``{e}`` for devices, ``{p}`` and ``{q}`` for parts, ``{c}`` for a part without faults
of its own, ``{f}`` and ``{g}`` for faults. Different letters are different names. ``{often}`` and ``{which}`` may stay
empty.
"""

from __future__ import annotations

from typing import NamedTuple

PARTS = {
    "Laptop": ("Screen", "Battery", "Keyboard", "Fan", "Charger"),
    "Phone": ("Screen", "Battery", "Speaker", "Charger"),
    "Tablet": ("Screen", "Battery", "Keyboard"),
    "Printer": ("Screen", "Cartridge", "Fan"),
    "Camera": ("Screen", "Battery", "Lens", "Charger"),
}
FAULTS = {  # verbs in the third person
    "Screen": ("Flickers", "Freezes", "Dims"),
    "Battery": ("Drains", "Swells", "Leaks"),
    "Keyboard": ("Sticks", "Rattles"),
    "Fan": ("Rattles", "Squeaks"),
    "Speaker": ("Rattles", "Crackles"),
    "Cartridge": ("Leaks", "Sticks"),
    "Lens": ("Sticks", "Freezes"),
    "Charger": (),
}


class Passage(NamedTuple):
    """What is said of one device, or of two.

    Attributes:
        text: one sentence or several, with gaps.
        labels: the paths of what is faulty, as the letters of their gaps: ``dpf eq`` is a fault and a part.
        others: further paths of the taxonomy, which could be meant if the words stood in another order.
    """

    text: str
    labels: str
    others: str = ""


# One fault, with nothing else in the way.
PLAIN = (
    Passage("The {p} of my {d}{which} {often}{f}s.", "dpf"),
    Passage("My {d}'s {p} {often}{f}s.", "dpf"),
    Passage("My {d}{which} gives me trouble: its {p} {often}{f}s.", "dpf"),
    Passage("Why does the {p} of my {d} {often}{f}?", "dpf"),
    Passage("You changed the {p} of my {d}. It still {f}s.", "dpf"),
    Passage("You cleaned my {d}'s {p}, but it began to {f} again.", "dpf"),
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
    Passage("The {p} of my {e} is fine, but that of my {d} {often}{f}s.", "dpf", "epf"),
    Passage("The {p} of my {d} {often}{f}s, that of my {e} does not.", "dpf", "epf"),
    Passage("My {d}'s {p} {often}{f}s, unlike the {e}'s.", "dpf", "epf"),
    Passage("Unlike my {e}'s {p}, the {d}'s {f}s.", "dpf", "epf"),
    Passage("My {e}{which} is fine. My {d} is not, its {p} {often}{f}s.", "dpf", "epf"),
    Passage("The {q} of my {e} is fine, but the {p} of my {d} {often}{f}s.", "dpf", "epf dq eq"),
    Passage("You repaired my {e}, whose {q} used to {g}. Now the {p} of my {d} {often}{f}s.", "dpf", "epf dqg eqg"),
    Passage("My {d}'s {p} {often}{f}s. My {e}'s {q} no longer {g}s, thanks to you.", "dpf", "epf dqg eqg"),
    Passage("I have a {d} and a {e}. The {p} of the first {often}{f}s, the second is fine.", "dpf", "epf"),
    Passage("I have a {e} and a {d}. The {p} of the second {often}{f}s, the first is fine.", "dpf", "epf"),
)

# Several faults.
SEVERAL = (
    Passage("The {p} of my {d}{which} {often}{f}s, and the {q} {g}s.", "dpf dqg"),
    Passage("The {p} of my {d} {f}s and {often}{g}s.", "dpf dpg"),
    Passage("Both the {p} and the {q} of my {d} {often}{f}.", "dpf dqf"),
    Passage("The {p} of my {d} {often}{f}s, and so does that of my {e}.", "dpf epf"),
    Passage("My {d}'s {p} {often}{f}s, my {e}'s {q} {g}s.", "dpf eqg", "epf dqg"),
    Passage("I have a {d} and a {e}. The {p} of the first {f}s, the {q} of the second {g}s.", "dpf eqg", "epf dqg"),
    Passage("I have a {e} and a {d}. The {p} of the second {f}s, the {q} of the first {g}s.", "dpf eqg", "epf dqg"),
)

# Paths that end early: nothing is said about the fault, or about the part.
EARLY = (
    Passage("Something is wrong with the {p} of my {d}.", "dp"),
    Passage("My {d}'s {p} is faulty, although it does not {f}.", "dp", "dpf"),
    Passage("My {e}'s {p} is fine, but the {d}'s is faulty.", "dp", "ep"),
    Passage("My {d} is faulty. It is not the {p}, and the {q} does not {f}.", "d", "dp dqf"),
    Passage("My {d}{which} is faulty, and the {p} of my {e} {often}{f}s.", "d epf", "dpf"),
    Passage("My {d}{which} needs a new {c}, the {p} is fine.", "dc", "dp"),
    Passage("My {d}'s {c} is faulty, unlike the {e}'s.", "dc", "ec"),
    Passage("The {c} of my {e} is fine, but that of my {d} is faulty.", "dc", "ec"),
)

KINDS = (PLAIN, SAME_DEVICE, OTHER_DEVICE, SEVERAL, EARLY)
ADJECTIVES = ("new", "black", "white", "small")
OFTEN = ("often", "always", "sometimes")
WHICH = ("which I bought in May", "which is two years old", "which I need at work")
OPENINGS = ("Hello.", "Good morning.", "Please help.")
CLOSINGS = ("Thank you.", "What can I do?", "Best wishes.")
