"""Evaluation: queries and gallery -> Ranking -> Evaluation, and comparisons of these."""

from fusecomp._core.metrics import (
    GeometricMean,
    HarmonicMean,
    Mean,
    MeanAveragePrecision,
    Recall,
    SubsetRecall,
)
from fusecomp.evaluation._bootstrap import Interval, bootstrap
from fusecomp.evaluation._circo_submission import write_circo_submission
from fusecomp.evaluation._cirr_submission import write_cirr_submission
from fusecomp.evaluation._compare import Change, Comparison, Difference, compare
from fusecomp.evaluation._cosines import CosineDistribution, Cosines, cosines, feature_cosines
from fusecomp.evaluation._evaluate import Evaluation, compute_metrics, evaluate
from fusecomp.evaluation._features import TaskFeatures
from fusecomp.evaluation._protocol import (
    ProtocolWarning,
    describe_protocol,
    protocol_differences,
    warn_of_differences,
)
from fusecomp.evaluation._rank import Ranking, rank
from fusecomp.evaluation._rounds import (
    Reply,
    SessionDataset,
    User,
    evaluate_rounds,
    simulate_rounds,
)
from fusecomp.evaluation._rounds_evaluation import RoundsEvaluation, TaskRounds
from fusecomp.evaluation._tasks import default_metric, metric_names
from fusecomp.types import TaskRanking

__all__ = [
    "Change",
    "Comparison",
    "CosineDistribution",
    "Cosines",
    "Difference",
    "Evaluation",
    "GeometricMean",
    "HarmonicMean",
    "Interval",
    "Mean",
    "MeanAveragePrecision",
    "ProtocolWarning",
    "Ranking",
    "Recall",
    "Reply",
    "RoundsEvaluation",
    "SessionDataset",
    "SubsetRecall",
    "TaskFeatures",
    "TaskRanking",
    "TaskRounds",
    "User",
    "bootstrap",
    "compare",
    "compute_metrics",
    "cosines",
    "default_metric",
    "describe_protocol",
    "evaluate",
    "evaluate_rounds",
    "feature_cosines",
    "metric_names",
    "protocol_differences",
    "rank",
    "simulate_rounds",
    "warn_of_differences",
    "write_circo_submission",
    "write_cirr_submission",
]
