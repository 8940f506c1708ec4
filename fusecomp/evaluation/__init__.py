"""The protocol, run once: queries and gallery -> Ranking -> Evaluation."""

from fusecomp.evaluation._evaluate import Evaluation, evaluate, score
from fusecomp.evaluation._features import TaskFeatures
from fusecomp.evaluation._metrics import combine, headline, metric_names
from fusecomp.evaluation._protocol import (
    ProtocolWarning,
    describe_protocol,
    protocol_differences,
)
from fusecomp.evaluation._rank import rank
from fusecomp.evaluation._ranking import Ranking, TaskRanking

__all__ = [
    "Evaluation",
    "ProtocolWarning",
    "Ranking",
    "TaskFeatures",
    "TaskRanking",
    "combine",
    "describe_protocol",
    "evaluate",
    "headline",
    "metric_names",
    "protocol_differences",
    "rank",
    "score",
]
