"""The stage engine: runs stages over their pending rows on Ray, so that stopping and starting again is resuming.

settings.py   what can be configured
outcome.py    one attempt at one row, and what can come of it (also used without Ray)
worker.py     the Ray actor that works
pool.py       the workers: batches in flight, time limits, deaths, a size that follows the cluster
ledger.py     what is pending of a stage, and the commits of what is settled
inputs.py     a stage's inputs: counted, and which are ready
failures.py   what was dropped or failed, and asking again
lane.py       one stage of a run: its queue, retries, quarantine
lease.py      one run at a time on a stage
cluster.py    joining or starting Ray
join.py       joining a cluster that runs already: its token, and what may be wrong
interrupt.py  Ctrl-C at a moment of our choosing
metrics.py    figures for Prometheus
run.py        the loop
"""

from sayso.engine.lane import Progress
from sayso.engine.outcome import attempt
from sayso.engine.run import Engine
from sayso.engine.settings import EngineSettings

__all__ = ["Engine", "EngineSettings", "Progress", "attempt"]
