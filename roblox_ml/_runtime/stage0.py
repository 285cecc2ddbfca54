"""The constant program every step starts with: it brings in the SDK by digest and hands over to `bootstrap`.

It is part of the command of every executor in the pipeline IR, so it is short, never changes with the user's code, and
needs nothing but Python: read the SDK's blob from `RML_STORE` (a folder, the control plane, or a bucket: then the
request is signed as `_s3.sign` does it, in a third of the words), verify its sha256, unpack it once under `RML_CACHE`
(default `$RML_HOME/cache`), put it on the path. Unpacking goes to a folder of its own and becomes visible by a rename,
so that any number of steps may start at once. A home that cannot be written (a locked-down pod) is replaced by a fresh
temporary folder. What is wrong with the store ends the step in one line that names it, and never a secret. The text
names `kfp.dsl.executor_main` because `kfp.local` runs only commands that contain it.
"""

from __future__ import annotations

__all__ = ["STAGE0", "command"]

STAGE0 = """\
#kfp.dsl.executor_main
import os,sys
a=sys.argv;d=a[a.index("--sdk")+1];e=os.environ.get;h=e("RML_HOME")or os.path.expanduser("~/.roblox_ml")
try:os.makedirs(h+"/cache",511,1)
except OSError:import tempfile;h=tempfile.mkdtemp()
os.environ["RML_HOME"]=h;p=(e("RML_CACHE")or h+"/cache")+"/sdk/"+d
if not os.path.isdir(p):
 import hashlib,hmac,io,time,zipfile,urllib.request as u
 s=e("RML_STORE")or f"file://{h}/store";l=f"{s}/sha256/{d[:2]}/{d}";w={}
 v="Bearer "+e("RML_TOKEN","");f=lambda x:hashlib.sha256(x).hexdigest()
 if l[:3]=="s3:":
  i,k,g,r,o=[e("AWS_"+x,"")for x in("ACCESS_KEY_ID","SECRET_ACCESS_KEY","SESSION_TOKEN","REGION","ENDPOINT_URL")]
  r=r or"us-east-1";o=o or f"https://s3.{r}.amazonaws.com";l=l[4:];y=f(b"")
  t=time.strftime("%Y%m%dT%H%M%SZ",time.gmtime());c=t[:8]+f"/{r}/s3/aws4_request";x="x-amz-"
  w={"host":o.split("/")[2],x+"content-sha256":y,x+"date":t}
  if g:w[x+"security-token"]=g
  n=";".join(w);z="\\n".join(["GET",l,"",*map(":".join,w.items()),"",n,y]);v="AWS4-HMAC-SHA256";k=b"AWS4"+k.encode()
  for m in*c.split("/"),f"{v}\\n{t}\\n{c}\\n"+f(z.encode()):k=hmac.digest(k,m.encode(),"sha256")
  l=o+l;v+=f" Credential={i}/{c},SignedHeaders={n},Signature="+k.hex()
 try:
  b=u.urlopen(u.Request(l,headers=w|{"Authorization":v})).read()
  if f(b)!=d:raise OSError("damaged")
 except OSError as x:sys.exit(f"roblox_ml: no SDK {d} in RML_STORE={s}: {x}")
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
