"""`make docs`: write every generated file that is stale."""

from docs.builders import ROOT, stale

for file, text in stale():
    file.write_text(text, "utf-8")
    print(f"{file.relative_to(ROOT)} is up to date now")  # noqa: T201 - printing is what it is for
