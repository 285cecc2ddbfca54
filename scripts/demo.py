"""`make demo`: the example notebook from the first cell to a live endpoint, and then the questions a sceptic would ask.

Executes `examples/comment_sentiment` headless, asks the endpoint with curl, REST and gRPC, compares the three ways to the
same model, measures macro-F1 through the door on every held-out text and the latency of single requests, and says where
to look. Exit code 1, with the reason, when a target is missed. `--keep` leaves the stack running.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "comment_sentiment"
PORTS = {
    "RML_MLFLOW_PORT": 18050, "RML_CONTROL_PORT": 18070, "RML_DOOR_PORT": 18080, "RML_DOOR_GRPC_PORT": 18081,
    "RML_TRITON_HTTP_PORT": 18000, "RML_TRITON_GRPC_PORT": 18001, "RML_TRITON_METRICS_PORT": 18002,
}  # fmt: skip


def main() -> int:
    """Run the demo; the exit code."""
    parser = argparse.ArgumentParser(description="The main job on real data, end to end.")
    parser.add_argument("--keep", action="store_true", help="leave the stack running (stop it with `rml down`)")
    parser.add_argument("--example", type=Path, default=EXAMPLE, help="folder of the notebook to run instead")
    options = parser.parse_args()
    started = time.monotonic()
    # Nothing of the demo touches the user's own home, unless it is told to.
    os.environ.setdefault("RML_HOME", str(ROOT / ".build" / "demo-home"))
    home = Path(os.environ["RML_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    os.environ.update(MPLBACKEND="module://matplotlib_inline.backend_inline", TOKENIZERS_PARALLELISM="false")

    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120, soft_wrap=True)

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {line}")

    import roblox_ml as rml
    from roblox_ml import _stack

    ours = not _stack.status()
    if ours:
        _free_ports(say)
    say(f"home {home}")
    try:
        return _demo(rml, say, console, home, options.example, started)
    except KeyboardInterrupt:
        say("[red]interrupted[/red]")
        return 130
    finally:
        if options.keep:
            say(f"the stack goes on running; stop it with [cyan]rml down[/cyan] [dim](RML_HOME={home})[/dim]")
        elif ours and _stack.down():
            say("stack stopped; [cyan]make demo ARGS=--keep[/cyan] leaves it running")


def _demo(rml, say, console, home: Path, example: Path, started: float) -> int:  # type: ignore[no-untyped-def]
    import nbformat
    from notebook_report import render
    from notebook_run import NotebookFailed, execute

    sys.path.insert(0, str(example))
    import demo_checks
    import demo_table

    folder = home / "demo"
    folder.mkdir(exist_ok=True)
    before = {run.id for run in rml.runs()}
    try:
        executed = execute(example / "comment_sentiment.ipynb", say)
    except NotebookFailed as failure:
        executed = failure.notebook  # type: ignore[attr-defined]
        say(f"[red]the notebook failed[/red]: {failure}")
        return 1
    finally:
        with suppress(UnboundLocalError):
            nbformat.write(executed, folder / "comment_sentiment.ipynb")
            (folder / "report.html").write_text(render(executed, "Comment sentiment"), "utf-8")
    (run,) = [run for run in rml.runs() if run.id not in before][:1]

    say("[bold]Asking the endpoint[/bold]")
    version = rml.models.get("comment-sentiment@champion")
    endpoint = rml.deploy(f"{version.name}@champion", say=lambda line: say(f"  {line}"))
    answers = run.outputs["evaluate"].answers.to_pandas()
    checks = demo_checks.ask(endpoint, version.load(), answers, lambda line: say(f"  {line}"))
    demo_table.show(console, run, version, checks, folder, time.monotonic() - started)
    for problem in checks.problems:
        say(f"[red]missed:[/red] {problem}")
    return 1 if checks.problems else 0


def _free_ports(say) -> None:  # type: ignore[no-untyped-def]
    """Move the ports that somebody else has; whoever set one has said where it belongs."""
    for variable, number in PORTS.items():
        if variable in os.environ:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
                continue
            except OSError:
                pass
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            os.environ[variable] = str(probe.getsockname()[1])
        say(f"port {number} is taken; {variable}={os.environ[variable]}")


if __name__ == "__main__":
    sys.exit(main())
