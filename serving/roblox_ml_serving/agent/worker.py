"""Carry out one action of the plan: pull, write into the repository, load, ask the known answer, unload."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path

from roblox_ml_core.errors import IntegrityError, PackageError, RmlError, Unavailable
from roblox_ml_core.names import triton_name
from roblox_ml_core.package import ModelPackage, read
from roblox_ml_core.package import materialise as pull
from roblox_ml_core.registry import DesiredModel
from roblox_ml_core.storage import BlobStore
from roblox_ml_core.telemetry import log

from ..repository import materialise, materialised, remove
from ..repository.config import BATCH_SUFFIX
from ..triton import processes
from . import environments, metrics
from .known_answer import check
from .ledger import Ledger
from .plan import Key
from .triton import Triton

__all__ = ["Worker"]

logger = logging.getLogger(__name__)


class Worker:
    """Does what the plan says to one Triton. Each method is called from a pool thread, one at a time per version."""

    def __init__(
        self,
        triton: Triton,
        store: BlobStore,
        ledger: Ledger,
        home: Path,
        instances: int,
        pin: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.repository = home / "serving" / "models"
        self.packages = home / "serving" / "packages"
        self._triton, self._store, self._ledger = triton, store, ledger
        self._home, self._instances, self._pin, self._clock = home, instances, pin, clock

    def load(self, wish: DesiredModel) -> None:
        """Make a version resident and prove it. A failure is recorded, never raised."""
        key, name = Key(wish.model, wish.version), triton_name(wish.model, wish.version)
        started = self._clock()
        try:
            package = self._pull(wish)
            options = environments.options_for(package, self._instances, self._home, pin=self._pin)
            self._ledger.phase(key, "loading")
            materialise(package, self.repository, wish.model, wish.version, options)
            self._triton.load(name)
            self._prove(key, package)
        except Unavailable as error:
            self._fail(key, wish.digest, error.message, unload=False)
        except RmlError as error:
            self._fail(key, wish.digest, str(error), unload=True)
        except Exception as error:  # a full disk, a permission: this version fails, the others go on
            log(logger, logging.ERROR, "load raised", model=str(key), error=repr(error))
            self._fail(key, wish.digest, f"{type(error).__name__}: {error}", unload=True)
        else:
            seconds = self._clock() - started
            metrics.LOADS.labels("ready").inc()
            metrics.LOAD_SECONDS.observe(seconds)
            log(logger, logging.INFO, "ready", model=str(key), digest=wish.digest, seconds=round(seconds, 2))

    def reload(self, key: Key, digest: str, reason: str) -> None:
        """Load what is loaded once more. Triton starts the new instances first and then stops what is left of the old."""
        name = triton_name(*key)
        log(logger, logging.WARNING, "reloading", model=str(key), reason=reason)
        metrics.RELOADS.inc()
        try:
            package = self._package_of(key)
            # Triton skips a load when nothing changed on disk, dead processes or not.
            (self._code(key) / "model.py").touch()
            self._triton.load(name)
            self._prove(key, package)
        except Unavailable as error:
            log(logger, logging.WARNING, "reload interrupted", model=str(key), reason=error.message)
        except (RmlError, OSError) as error:
            self._fail(key, digest, f"after a reload ({reason}): {error}", unload=True)

    def check(self, key: Key, digest: str) -> None:
        """Ask a loaded version its known answer: on adoption, and again every so often."""
        adopting = self._ledger.proof(key) is None
        try:
            package = self._package_of(key)
            if adopting and (missing := self._missing_instances(key)):
                self._ledger.broke(key, missing)
                return
            self._prove(key, package)
        except Unavailable as error:
            log(logger, logging.WARNING, "not checked", model=str(key), reason=error.message)
        except (RmlError, OSError) as error:
            self._ledger.broke(key, str(error))
            metrics.CHECKS.labels("wrong").inc()
            log(logger, logging.ERROR, "wrong answer", model=str(key), reason=str(error))
        else:
            environments.touch(package, self._home)
            if adopting:
                log(logger, logging.INFO, "adopted", model=str(key), digest=digest)

    def unload(self, key: Key, reason: str, in_use: Callable[[], set[str]]) -> None:
        """Take a version out of Triton, the repository and the disk. `in_use`: digests that other versions need."""
        name = triton_name(*key)
        found = materialised(self.repository, name)
        try:
            self._triton.unload(name)
        except RmlError as error:
            log(logger, logging.WARNING, "unload failed", model=str(key), reason=error.message)
            return
        self._ledger.unloaded(key)
        remove(self.repository, name)
        if found is not None and found.digest not in in_use():
            shutil.rmtree(self.packages / found.digest, ignore_errors=True)
        metrics.UNLOADS.inc()
        log(logger, logging.INFO, "unloaded", model=str(key), reason=reason)

    def sweep(self, loaded: Collection[str], digests: Collection[str]) -> None:
        """Remove what a killed predecessor left on the disk: half-written folders, versions that nobody wants or has loaded."""
        for folder in self.repository.glob("*"):
            # A public folder belongs to its version, a batch folder to the public one; drafts begin with a dot.
            if folder.name.removesuffix(BATCH_SUFFIX) not in loaded:
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self.packages.glob("*"):
            if folder.name not in digests:
                shutil.rmtree(folder, ignore_errors=True)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _pull(self, wish: DesiredModel) -> ModelPackage:
        """The package on this disk, verified. One that was damaged here is fetched again, once."""
        target = self.packages / wish.digest
        self.packages.mkdir(parents=True, exist_ok=True)
        try:
            return pull(wish.manifest, self._store, target, wish.digest)
        except (PackageError, IntegrityError):
            if not target.exists():
                raise
            log(logger, logging.WARNING, "local copy is damaged, fetching it again", digest=wish.digest)
            shutil.rmtree(target)
            return pull(wish.manifest, self._store, target, wish.digest)

    def _prove(self, key: Key, package: ModelPackage) -> None:
        """Record that a version answers as it should, or raise `PackageError` saying how it does not."""
        findings = check(self._triton, package, triton_name(*key), key.version)
        if findings:
            raise PackageError(f"{key} does not give its known answer: {'; '.join(findings)}")
        metrics.CHECKS.labels("right").inc()
        alive = frozenset(stub for stub in processes.stubs(self.repository) if stub.model == triton_name(*key))
        expected = materialised(self.repository, triton_name(*key))
        # After a reload the instances of before may still be finishing; the youngest ones are those that serve.
        youngest = sorted(alive, key=lambda stub: stub.started)[-(expected.instances if expected else len(alive)) :]
        self._ledger.proved(key, package.digest, self._clock(), frozenset(youngest))

    def _missing_instances(self, key: Key) -> str:
        """Why an adopted version is not whole; empty when it is, or when its processes cannot be seen from here."""
        expected = materialised(self.repository, triton_name(*key))
        visible = processes.stubs(self.repository)
        alive = sum(stub.model == triton_name(*key) for stub in visible)
        if expected is None or not visible or alive >= expected.instances:
            return ""
        return f"{expected.instances - alive} of its {expected.instances} instance processes ended"

    def _package_of(self, key: Key) -> ModelPackage:
        return read(self._code(key) / "package")

    def _code(self, key: Key) -> Path:
        name = triton_name(*key)
        found = materialised(self.repository, name)
        if found is None:
            raise PackageError(f"{name} is loaded, but its folder in the repository is gone")
        return self.repository / found.batch_name / str(key.version)

    def _fail(self, key: Key, digest: str, reason: str, *, unload: bool) -> None:
        if unload:
            try:
                self._triton.unload(triton_name(*key))
            except RmlError as error:
                log(logger, logging.WARNING, "unload failed", model=str(key), reason=error.message)
        failure = self._ledger.failed(key, digest, reason, self._clock())
        metrics.LOADS.labels("failed").inc()
        log(logger, logging.ERROR, "failed", model=str(key), digest=digest, attempt=failure.attempts, reason=reason)
