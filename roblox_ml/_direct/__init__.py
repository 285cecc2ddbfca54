"""A client that decides by itself, with the door's own rules, and asks the model servers without the door.

    feed = rml.direct("feed")
    feed.predict({"X": [[1.0, 2.0]]}, unit="user-17")

`view` reads a snapshot, `following` keeps it fresh, `servers` and `rest` ask, `exposing` says who saw which arm, `client` is all of it.
"""
