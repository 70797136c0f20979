"""What everything in a run shares."""

from __future__ import annotations

from dataclasses import dataclass, field

from rallypoint.model import JobSpec
from simulation.network import Network
from simulation.options import Options
from simulation.oracles import Oracles
from simulation.workload import Workload
from simulation.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    world: World
    options: Options
    network: Network
    oracles: Oracles
    workload: Workload
    specs: dict[str, JobSpec] = field(default_factory=dict)
    """What a job's command line says now, if it was changed since the job was drawn."""
