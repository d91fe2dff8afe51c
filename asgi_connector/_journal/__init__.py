"""Recording, and what users ask of a journal. May import _export and the layers below it."""
