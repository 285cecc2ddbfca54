"""`python -m benchmarks.router.stub`: a model server that costs next to nothing. Every request gets the same v2 answer.

One thread and epoll; prints its port.
"""

from __future__ import annotations

import select
import socket

from .http1 import end_of

ANSWER = (
    b'{"model_name":"feed.1","model_version":"1","id":"1","outputs":[{"name":"scores","datatype":"FP32","shape":[1,64],"data":['
    + b",".join(b"0.%04d" % (at * 137 % 10_000) for at in range(64))
    + b"]}]}"
)
RAW = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)


def main() -> None:
    """Serve until killed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    listening.setblocking(False)
    print(listening.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listening, select.EPOLLIN)
    open_: dict[int, socket.socket] = {}
    rest: dict[int, bytes] = {}
    while True:
        for number, _ in poll.poll():
            if number == listening.fileno():
                connection, _peer = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_[connection.fileno()] = connection
                poll.register(connection, select.EPOLLIN)
                continue
            connection = open_[number]
            try:
                data = connection.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                poll.unregister(number)
                open_.pop(number).close()
                rest.pop(number, None)
                continue
            if number in rest:
                data = rest.pop(number) + data
            while data and (end := end_of(data)) >= 0:
                connection.sendall(RAW)
                data = data[end:]
            if data:
                rest[number] = data


if __name__ == "__main__":
    main()
