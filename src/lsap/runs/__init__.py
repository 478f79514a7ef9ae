"""Work that lasts: run folders, files that are whole or absent, and what a run ran on."""

from lsap.runs.atomic import read_json, replacing, save_safetensors, write_bytes, write_json, write_text
from lsap.runs.checkpoints import AtomicCheckpoints, LastCheckpoint
from lsap.runs.curves import MetricsFile
from lsap.runs.folder import RunFolder
from lsap.runs.manifest import manifest, peak_memory
from lsap.runs.plan_progress import PlanProgress
from lsap.runs.progress import ReadableProgress, quiet_lightning
from lsap.runs.store import Batch, Plan, Store

__all__ = [
    "AtomicCheckpoints",
    "Batch",
    "LastCheckpoint",
    "MetricsFile",
    "Plan",
    "PlanProgress",
    "ReadableProgress",
    "RunFolder",
    "Store",
    "manifest",
    "peak_memory",
    "quiet_lightning",
    "read_json",
    "replacing",
    "save_safetensors",
    "write_bytes",
    "write_json",
    "write_text",
]
