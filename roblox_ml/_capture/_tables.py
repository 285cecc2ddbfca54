"""The calls a slice may repeat in a step: cheap, without side effects, and equal wherever they run.

Everything not named here is refused, because capture cannot know what it costs or what it touches. The list is part of
the public behaviour and documented in docs/design/capture.md; names are dotted paths after resolving imports.
"""

from __future__ import annotations

import builtins


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BUILTIN_NAMES = frozenset(dir(builtins)) - {"display", "get_ipython", "__IPYTHON__", "_"} | {
    "__name__", "__doc__", "__package__", "__spec__", "__loader__", "__builtins__", "__annotations__", "__dict__", "__debug__",
}  # fmt: skip
"""Names every module has; IPython adds some to `builtins` that a step does not have."""

PURE_BUILTINS = _words(
    "abs all any ascii bin bool bytearray bytes chr complex dict divmod float format frozenset getattr hasattr hex int "
    "isinstance issubclass len list max min object oct ord pow range repr round set slice sorted str sum tuple type"
)

ONE_SHOT = frozenset(
    {"enumerate", "filter", "iter", "map", "reversed", "zip"}
    | {f"itertools.{name}" for name in _words("accumulate chain chain.from_iterable combinations count cycle islice permutations "
       "product repeat starmap takewhile zip_longest")}
)  # fmt: skip
"""Iterators: used up by whoever reads them first, so fine inside another call and refused as a value of their own."""

PURE_METHODS = _words(
    "as_posix capitalize casefold copy count decode difference encode endswith expanduser format format_map from_bytes fromkeys "
    "get index intersection isdigit items joinpath join keys lower lstrip most_common partition removeprefix removesuffix "
    "replace rpartition rsplit rstrip split splitlines startswith strip symmetric_difference title to_bytes total_seconds "
    "union upper values with_name with_suffix with_stem zfill _replace _asdict isoformat issubset issuperset"
)
"""Methods of strings, containers and paths, on a value that is itself carried."""

_EXACT = """
argparse.Namespace collections.ChainMap collections.Counter collections.OrderedDict collections.UserDict collections.defaultdict
collections.deque collections.namedtuple contextvars.ContextVar copy.copy copy.deepcopy dataclasses.asdict dataclasses.field
dataclasses.make_dataclass dataclasses.replace datetime.date datetime.datetime datetime.time datetime.timedelta
datetime.timezone datetime.date.fromisoformat datetime.datetime.fromisoformat datetime.datetime.strptime decimal.Decimal
enum.Enum enum.IntEnum enum.StrEnum enum.Flag enum.auto fractions.Fraction functools.cache functools.lru_cache functools.partial
functools.wraps functools.reduce importlib.util.find_spec inspect.cleandoc ipaddress.ip_address ipaddress.ip_network json.dumps
json.loads logging.getLogger operator.attrgetter operator.itemgetter operator.methodcaller os.cpu_count os.environ.get os.fspath
os.getenv platform.machine platform.system re.compile re.escape string.Template struct.Struct struct.calcsize textwrap.dedent
textwrap.indent types.MappingProxyType types.SimpleNamespace typing.NamedTuple typing.NewType typing.ParamSpec typing.TypeVar
decimal.getcontext typing.TypedDict typing.cast typing_extensions.TypedDict uuid.UUID zoneinfo.ZoneInfo
numpy.arange numpy.array numpy.asarray numpy.dtype numpy.eye numpy.finfo numpy.full numpy.iinfo numpy.linspace numpy.logspace
numpy.ones numpy.zeros numpy.datetime64 numpy.timedelta64
pandas.CategoricalDtype pandas.DateOffset pandas.Interval pandas.Timedelta pandas.Timestamp
torch.Size torch.cuda.device_count torch.cuda.is_available torch.device torch.backends.mps.is_available torch.get_default_dtype
torch.finfo torch.iinfo roblox_ml.step packaging.version.Version packaging.version.parse
"""

_NUMPY_SCALARS = _words(
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 "
    "complex128 str_ bytes_ intp"
)

PURE_FUNCTIONS = _words(_EXACT) | {f"numpy.{name}" for name in _NUMPY_SCALARS}

PURE_PREFIXES = ("cmath.", "math.", "os.path.", "pathlib.", "statistics.", "string.", "unicodedata.")
"""Modules of which every function qualifies; what touches files or depends on the working directory is excluded below."""

IMPURE_LAST = _words(
    "exists glob iterdir mkdir open read_bytes read_text rglob stat touch unlink write_bytes write_text getmtime getsize is_dir "
    "is_file isfile isdir rename rmdir walk cwd abspath realpath relpath lexists islink ismount samefile getatime getctime"
)

RECORD_BASES = _words(
    "typing.NamedTuple typing.TypedDict enum.Enum enum.IntEnum enum.StrEnum enum.Flag enum.IntFlag pydantic.BaseModel"
)
RECORD_FACTORIES = _words("collections.namedtuple typing.NamedTuple dataclasses.make_dataclass enum.Enum enum.IntEnum")
RECORD_DECORATORS = _words("dataclasses.dataclass attr.s attr.define attr.frozen attrs.define attrs.frozen")
"""A class of the notebook made with these only stores what it is given: an instance with carried arguments is carried."""

EFFECTS = _words("""
random.seed numpy.random.seed torch.manual_seed torch.cuda.manual_seed torch.cuda.manual_seed_all torch.set_num_threads
torch.set_num_interop_threads torch.set_default_dtype torch.set_default_device torch.use_deterministic_algorithms
torch.set_float32_matmul_precision torch.set_printoptions torch.autograd.set_detect_anomaly
transformers.set_seed transformers.logging.set_verbosity_error transformers.logging.set_verbosity_warning
transformers.logging.set_verbosity_info transformers.utils.logging.set_verbosity_error
tensorflow.random.set_seed lightning.seed_everything pytorch_lightning.seed_everything
warnings.filterwarnings warnings.simplefilter logging.basicConfig logging.disable locale.setlocale sys.setrecursionlimit
socket.setdefaulttimeout decimal.getcontext multiprocessing.set_start_method
numpy.set_printoptions numpy.seterr pandas.set_option pandas.options.mode.copy_on_write
matplotlib.use matplotlib.style.use matplotlib.pyplot.style.use matplotlib.rcParams.update matplotlib.pyplot.rcParams.update
matplotlib.pyplot.switch_backend seaborn.set seaborn.set_theme seaborn.set_style seaborn.set_context seaborn.set_palette
sklearn.set_config polars.Config.set_tbl_rows tqdm.pandas tqdm.auto.tqdm.pandas tqdm.tqdm.pandas
warnings.resetwarnings os.environ.setdefault os.environ.update os.putenv
""")
"""Statements of one call that set state of a process; carried when the slice uses the module."""

EFFECT_CHAINS = frozenset({"decimal.getcontext", "logging.getLogger"})
"""Calls that return an object of the process: setting its attributes sets state of the process."""

SETTING_WORDS = ("set_", "enable_", "disable_", "use_", "configure", "register_")
"""A function of a module whose name begins so is taken for one that sets state, though nobody listed it."""

EVERYWHERE = ("builtins.", "sys.setrecursionlimit", "sys.modules", "locale.setlocale")
"""State that every slice feels."""

WITH_ANY_IMPORT = ("os.environ", "os.putenv", "warnings.")
"""State that libraries read: carried when the slice imports anything."""

EFFECT_IMPORTS = ("sklearn.experimental.",)
"""Imports that act by being made; carried when the slice uses the package."""
