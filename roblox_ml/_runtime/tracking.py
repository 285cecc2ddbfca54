"""placeholder"""


def begin(lock: str) -> None:
    """placeholder"""


def finish(error: BaseException | None) -> None:
    """placeholder"""
