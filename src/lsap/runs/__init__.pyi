"""What `lsap.runs` offers; each name is imported when it is first asked for."""

from .atomic import read_json as read_json
from .atomic import replacing as replacing
from .atomic import save_safetensors as save_safetensors
from .atomic import write_bytes as write_bytes
from .atomic import write_json as write_json
from .atomic import write_text as write_text
from .checkpoints import AtomicCheckpoints as AtomicCheckpoints
from .checkpoints import LastCheckpoint as LastCheckpoint
from .content import cache_folder as cache_folder
from .content import changed_images as changed_images
from .content import content_digest as content_digest
from .content import files_digest as files_digest
from .content import image_digests as image_digests
from .content import unchanged_since as unchanged_since
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
