"""What the first page begins with, so that the first click shows something. Pure."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "shoes": {
        "query": "in blue",
        "title": "Nike Men Black Running Shoes",
        "text": "Men, Sports Shoes, Black, Sports",
        "candidates": (
            "Nike Men Downshifter Black Sports Shoes\n"
            "Nike Women Blue Swim Cap\n"
            "Nike Men Lunar Blue Sports Shoes\n"
            "Puma Men Blue Polo T-shirt\n"
            "Adidas Men Blue Running Shoes\n"
            "Nike Men Black Sports Sandals"
        ),
    },
    "jobs": {
        "query": "registerd nurse",
        "candidates": (
            "0.42 | Nursing Assistants\n"
            "0.40 | Licensed Practical and Licensed Vocational Nurses\n"
            "0.37 | Registered Nurses\n"
            "0.31 | Nurse Midwives\n"
            "0.22 | Registered Representatives, Securities"
        ),
    },
    "nothing": {
        "query": "registered nurses",
        "candidates": "0.61 | Registered Nurses\n0.45 | Nurse Practitioners\n0.40 | Nursing Assistants",
    },
}
"""By name; the first one is there at once. The last one has nothing to rewrite for the checkpoint shipped."""
