"""KServe's Python Transformer as its documentation writes one that changes nothing: REST v2 in, REST v2 out, its own client."""

from __future__ import annotations

import argparse

import kserve  # type: ignore[import-not-found]
from kserve import model_server


class Identity(kserve.Model):  # type: ignore[misc]
    """No pre- or postprocessing: what is left is the path of a request through the SDK."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.ready = True


if __name__ == "__main__":
    given = argparse.ArgumentParser(parents=[model_server.parser]).parse_args()
    kserve.ModelServer(workers=1).start([Identity(given.model_name)])
