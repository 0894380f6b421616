"""The model that ships with DEFT, so that a first run needs no download."""
