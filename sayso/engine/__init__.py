"""The stage engine: runs a stage over its pending rows on Ray, so that stopping and starting again is resuming.

settings.py   what can be configured
outcome.py    one attempt at one row, and what can come of it (also used without Ray)
worker.py     the Ray actor around a stage
pool.py       the actors: rows in flight, time limits, deaths
interrupt.py  Ctrl-C at a moment of our choosing
ledger.py     what is pending, and the commits of what is settled
cluster.py    joining or starting Ray
join.py       joining a cluster that runs already: its token, and what may be wrong
run.py        the loop
"""

from sayso.engine.outcome import attempt
from sayso.engine.run import Engine, Progress
from sayso.engine.settings import EngineSettings

__all__ = ["Engine", "EngineSettings", "Progress", "attempt"]
