"""Recording, and what users ask of a journal. May import _page and the layers below it."""
