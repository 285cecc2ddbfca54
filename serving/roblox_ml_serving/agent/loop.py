"""The agent's loop: look, plan, hand out the actions; again as soon as something changes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from roblox_ml_core.errors import RmlError
from roblox_ml_core.names import triton_name
from roblox_ml_core.registry import DesiredModel, ModelState, RegistryClient
from roblox_ml_core.settings import AgentSettings, HomeSettings, TritonSettings
from roblox_ml_core.telemetry import log

from ..triton import processes
from ..triton.processes import Stub
from . import metrics
from .control import Reporter, Wishes
from .environments import cores
from .ledger import Ledger
from .memory import Expected
from .plan import Action, Check, Key, Limits, Load, Observed, Refuse, Reload, Unload, Wanted, plan
from .seed import Seed, SeededStore
from .triton import TRANSITIONS, Slow, Triton
from .worker import Worker

__all__ = ["Agent"]

logger = logging.getLogger(__name__)

# Loads wait for disks and for Triton, not for our CPU; a slow one must not hold up the others.
PARALLEL_ACTIONS = 4
# Looks in a row that Triton may answer too late: a load on a busy machine holds its index up, and the models answer meanwhile.
SLOW_LOOKS = 2


class Agent:
    """Keeps one Triton equal to the control plane's wishes until it is stopped."""

    def __init__(
        self,
        agent: AgentSettings,
        triton: TritonSettings,
        home: HomeSettings,
        client: Callable[[], RegistryClient],
        seed: Seed | None = None,
    ) -> None:
        self._settings = agent
        self._seed = seed
        self._wake = threading.Event()
        self._stopping = False
        self._instances = agent.instances or cores()
        self._limits = Limits(agent.memory_budget_mb * 2**20, agent.grace_s, agent.max_attempts)
        self.ledger = Ledger(agent.probe_s, self._something_changed)
        self._triton = Triton(triton.grpc_address, load_timeout_s=agent.load_timeout_s)
        store = SeededStore(home.store_url, seed, token=home.read_token())
        self._expected = Expected(self._instances, store.get)
        self._worker = Worker(self._triton, store, self.ledger, home.root, self._instances, agent.pin)
        wishes_path = home.root / "serving" / f"desired-{agent.server}.json"
        self._wishes = Wishes(client(), agent.server, wishes_path, agent.poll_wait_s, self._wake.set, agent.role)
        self._reporter = Reporter(
            client(), agent.server, triton.http_address, triton.grpc_address, agent.heartbeat_s, self._states
        )
        self._digests: dict[Key, str] = {}
        self._swept = False
        self._slow = 0

    def run(self) -> None:
        """Until `stop`. What Triton serves then stays as it is."""
        self._wishes.start()
        started, reporting = time.monotonic(), False
        with ThreadPoolExecutor(PARALLEL_ACTIONS, thread_name_prefix="action") as pool:
            while not self._stopping:
                self._wake.clear()
                self.round(pool)
                # Doors still believe what our predecessor said. To report what is loaded before it was asked anything would
                # take it out of service for that moment; to be silent for long would take it out for good.
                if not reporting and (not self._adopting() or time.monotonic() - started > self._settings.heartbeat_s):
                    self._reporter.start()
                    reporting = True
                self._wake.wait(self._settings.tick_s)
        self._reporter.stop(leave=self._settings.leave)
        self._wishes.stop()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    def round(self, pool: ThreadPoolExecutor) -> None:
        """One look and one plan. Nothing that goes wrong here ends the agent."""
        wishes = {Key(model.model, model.version): model for model in self._wanted()}
        wanted = [Wanted(key, model.digest, self._expected(model)) for key, model in wishes.items()]
        try:
            observed = self._observe(set(wishes))
        except RmlError as error:
            self._slow += 1
            if isinstance(error, Slow) and self._slow <= SLOW_LOOKS:
                log(logger, logging.WARNING, "Triton answers late", reason=error.message)
                return
            self._digests.clear()
            if self.ledger.down():
                log(logger, logging.WARNING, "Triton does not answer", reason=error.message)
            # What a killed Triton leaves has inherited its clients' connections: while it lives, they wait for an answer.
            if orphans := processes.end_orphans(self._worker.repository):
                log(logger, logging.WARNING, "ended what a killed Triton left", processes=orphans)
            return
        self._slow = 0
        if not self._swept and self._wishes.confirmed and not observed.busy:
            self._swept = True
            names = {triton_name(*key) for key in {*wishes, *observed.residents}}
            resident = {resident.digest for resident in observed.residents.values()}
            self._worker.sweep(names, resident | self._digests_in_use())
        actions = plan(wanted, observed, self._limits)
        for refusal in self.ledger.refuse([action for action in actions if isinstance(action, Refuse)]):
            log(logger, logging.ERROR, "refused", model=str(refusal.key), reason=refusal.reason)
        for action in actions:
            self._start(pool, action, wishes)

    def _observe(self, wanted: set[Key]) -> Observed:
        busy = self.ledger.busy()
        states = self._triton.loaded()
        alive = processes.stubs(self._worker.repository)
        by_model: dict[str, list[Stub]] = {}
        for stub in alive:
            by_model.setdefault(stub.model, []).append(stub)
        resident: dict[Key, tuple[str, int]] = {}
        for key in [key for key, state in states.items() if state == "READY"]:
            name = triton_name(*key)
            if key not in self._digests:
                self._digests[key] = self._triton.digest(name)
            resident[key] = (self._digests[key], processes.memory(by_model.get(name, ())))
        self._digests = {key: digest for key, digest in self._digests.items() if key in resident}
        metrics.RESIDENT.set(len(resident))
        metrics.MEMORY_BYTES.set(sum(memory for _, memory in resident.values()))
        moving = {key for key, state in states.items() if state in TRANSITIONS}
        return self.ledger.observe(time.monotonic(), resident, moving, alive, wanted, busy)

    def _start(self, pool: ThreadPoolExecutor, action: Action, wishes: dict[Key, DesiredModel]) -> None:
        key = action.key
        match action:
            case Load():
                self.ledger.begin(key, "pulling", self._expected(wishes[key]))
                pool.submit(self._guarded, key, lambda: self._worker.load(wishes[key]))
            case Reload(reason=reason):
                self.ledger.begin(key, "loading")
                pool.submit(self._guarded, key, lambda: self._worker.reload(key, wishes[key].digest, reason))
            case Check():
                self.ledger.begin(key, "checking")
                pool.submit(self._guarded, key, lambda: self._worker.check(key, wishes[key].digest))
            case Unload(reason=reason):
                # On disk the last wishes of a former life: good enough to load by, not to throw something out by.
                if self._wishes.confirmed:
                    self.ledger.begin(key, "unloading")
                    pool.submit(self._guarded, key, lambda: self._worker.unload(key, reason, self._digests_in_use))
            case Refuse():
                pass

    def _guarded(self, key: Key, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # the workers record what they expect; anything else must not vanish in a pool
            logger.exception("action failed unexpectedly: %s", key)
        finally:
            self._digests.pop(key, None)
            self.ledger.end(key)
            self._wake.set()

    def _wanted(self) -> Sequence[DesiredModel]:
        """What the control plane wants, and what the pod brought with it."""
        wishes = self._wishes.models
        return wishes if self._seed is None else self._seed.join(wishes)

    def _adopting(self) -> bool:
        return self.ledger.adopting({Key(model.model, model.version) for model in self._wanted()})

    def _states(self) -> list[ModelState]:
        return self.ledger.states([Wanted(Key(m.model, m.version), m.digest) for m in self._wanted()])

    def _digests_in_use(self) -> set[str]:
        return {model.digest for model in self._wanted()}

    def _something_changed(self) -> None:
        self._reporter.changed()
