"""One settings class per service, read from the environment; every address is loopback unless somebody says otherwise.

Secrets are never a default here: the token comes from ``RML_TOKEN`` or the file ``$RML_HOME/token``, the database
password from a URL in the environment or in the file that ``RML_CONTROL_DATABASE_URL_FILE`` names.
"""

from .control_plane import ControlPlaneSettings, MlflowSettings
from .door import DoorSettings, FeaturesSettings, RecordsSettings
from .home import HomeSettings
from .identity import IdentitySettings, IssuerSettings
from .notifying import NotifySettings
from .rollouts import AnalysisSettings, GuardSettings
from .triton import AgentSettings, TritonSettings

__all__ = [
    "AgentSettings",
    "AnalysisSettings",
    "ControlPlaneSettings",
    "DoorSettings",
    "FeaturesSettings",
    "GuardSettings",
    "HomeSettings",
    "IdentitySettings",
    "IssuerSettings",
    "MlflowSettings",
    "NotifySettings",
    "RecordsSettings",
    "TritonSettings",
]
