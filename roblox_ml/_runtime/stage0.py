"""The constant program every step starts with: it brings in the SDK by digest and hands over to `bootstrap`.

It is part of the command of every executor in the pipeline IR, so it is short, never changes with the user's code, and
needs nothing but Python: read the SDK's blob from `RML_STORE`, verify its sha256, unpack it once under `RML_CACHE`
(default `$RML_HOME/cache`), put it on the path. Unpacking goes to a folder of its own and becomes visible by a rename,
so that any number of steps may start at once. A home that cannot be written (a locked-down pod) is replaced by a fresh
temporary folder. The text names `kfp.dsl.executor_main` because `kfp.local` runs only commands that contain it.
"""

from __future__ import annotations

__all__ = ["STAGE0", "command"]

STAGE0 = """\
#kfp.dsl.executor_main
import os,sys
a=sys.argv;d=a[a.index("--sdk")+1];e=os.environ;h=e.get("RML_HOME")or os.path.expanduser("~/.roblox_ml")
try:os.makedirs(h+"/cache",exist_ok=True)
except OSError:import tempfile;h=tempfile.mkdtemp()
e["RML_HOME"]=h;p=(e.get("RML_CACHE")or h+"/cache")+"/sdk/"+d
if not os.path.isdir(p):
 import hashlib,io,zipfile,urllib.request as u
 s=e.get("RML_STORE")or"file://"+h+"/store"
 b=u.urlopen(u.Request(f"{s}/sha256/{d[:2]}/{d}",headers={"Authorization":"Bearer "+e.get("RML_TOKEN","")})).read()
 if hashlib.sha256(b).hexdigest()!=d:sys.exit(f"the SDK {d} in {s} is damaged: compile and upload again")
 q=p+"."+os.urandom(4).hex();zipfile.ZipFile(io.BytesIO(b)).extractall(q)
 try:os.rename(q,p)
 except OSError:p=q
sys.path.insert(0,p)
from roblox_ml._runtime.bootstrap import main
main(a[1:])
"""


def command() -> list[str]:
    """The `command` of every executor of the IR."""
    return ["python3", "-c", STAGE0]
