"""The protocols by the name that the command knows them under."""

from train.evaluate.crosstask import CrossTask
from train.evaluate.hmdb51 import HMDB51
from train.evaluate.protocol import Protocol
from train.evaluate.text_to_clip import MSRVTT, YouCook2

PROTOCOLS: dict[str, type[Protocol]] = {protocol.name: protocol for protocol in (YouCook2, MSRVTT, HMDB51, CrossTask)}
