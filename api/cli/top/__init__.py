"""`mulligan top`: runs in flight and providers on a full screen, with the levers that steer them.

A client of the API only. `row.py`, `model.py` and `cells.py` know no terminal; `feeds.py` keeps the model up to date;
the other modules draw it and take the keys.
"""
