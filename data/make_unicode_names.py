#!/usr/bin/env python3
"""Writes unicode-names.tsv: every character that has an individual name, by Python's unicodedata.

Usage: python3 make_unicode_names.py [OUTPUT]      (default: unicode-names.tsv beside this script)

One row for each character, in order of code points: `U+1F980`, a tab, `CRAB`, a line feed. Names that a rule
generates from the code point are left out, because they say nothing that the key does not say. The Unicode
version is that of the Python which runs this; it is printed at the end.
"""

import pathlib
import sys
import unicodedata

# What a generated name starts with; the rest of it is the code point (or, for Hangul, the parts of the syllable).
GENERATED = (
    "CJK COMPATIBILITY IDEOGRAPH-",
    "CJK UNIFIED IDEOGRAPH-",
    "EGYPTIAN HIEROGLYPH-",
    "HANGUL SYLLABLE ",
    "KHITAN SMALL SCRIPT CHARACTER-",
    "NUSHU CHARACTER-",
    "TANGUT IDEOGRAPH-",
)


def rows():
    for code_point in range(sys.maxunicode + 1):
        name = unicodedata.name(chr(code_point), "")
        if name and not name.startswith(GENERATED):
            yield f"U+{code_point:04X}\t{name}\n"


def main():
    beside = pathlib.Path(__file__).with_name("unicode-names.tsv")
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else beside
    lines = list(rows())
    output.write_bytes("".join(lines).encode("ascii"))
    print(f"{output}: {len(lines)} characters of Unicode {unicodedata.unidata_version}")


if __name__ == "__main__":
    main()
