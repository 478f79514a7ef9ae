"""What `lsap.runs` offers; each name is imported when it is first asked for."""

from .atomic import read_json as read_json
from .atomic import replacing as replacing
from .atomic import save_safetensors as save_safetensors
from .atomic import write_bytes as write_bytes
from .atomic import write_json as write_json
from .atomic import write_text as write_text
from .checkpoints import AtomicCheckpoints as AtomicCheckpoints
from .checkpoints import LastCheckpoint as LastCheckpoint
from .curves import MetricsFile as MetricsFile
from .folder import RunFolder as RunFolder
from .plan_progress import PlanProgress as PlanProgress
from .progress import ReadableProgress as ReadableProgress
from .progress import quiet_lightning as quiet_lightning
from .provenance import manifest as manifest
from .provenance import peak_memory as peak_memory
from .store import Batch as Batch
from .store import Plan as Plan
from .store import Store as Store
