"""Reports: tables, figures and pages of what was measured, and comparisons of two runs."""

from typing import TYPE_CHECKING

from fusecomp.lazy import lazily

if TYPE_CHECKING:
    from fusecomp.report._ablation_table import ablation_table
    from fusecomp.report._bootstrap import Interval, bootstrap, interval_table
    from fusecomp.report._compare import Comparison, compare
    from fusecomp.report._comparison_table import comparison_table
    from fusecomp.report._cosine_figure import cosine_figure
    from fusecomp.report._cosines import Cosines, cosines, feature_cosines
    from fusecomp.report._curves import training_curves
    from fusecomp.report._page import retrieval_page
    from fusecomp.report._report import write_report
    from fusecomp.report._sheets import contact_sheet, retrieval_sheet
    from fusecomp.report._table import Table
else:
    __getattr__ = lazily(
        __name__,
        {
            "Comparison": "fusecomp.report._compare",
            "Cosines": "fusecomp.report._cosines",
            "Interval": "fusecomp.report._bootstrap",
            "Table": "fusecomp.report._table",
            "ablation_table": "fusecomp.report._ablation_table",
            "bootstrap": "fusecomp.report._bootstrap",
            "compare": "fusecomp.report._compare",
            "comparison_table": "fusecomp.report._comparison_table",
            "contact_sheet": "fusecomp.report._sheets",
            "cosine_figure": "fusecomp.report._cosine_figure",
            "cosines": "fusecomp.report._cosines",
            "feature_cosines": "fusecomp.report._cosines",
            "interval_table": "fusecomp.report._bootstrap",
            "retrieval_page": "fusecomp.report._page",
            "retrieval_sheet": "fusecomp.report._sheets",
            "write_report": "fusecomp.report._report",
            "training_curves": "fusecomp.report._curves",
        },
    )

__all__ = [
    "Comparison",
    "Cosines",
    "Interval",
    "Table",
    "ablation_table",
    "bootstrap",
    "compare",
    "comparison_table",
    "contact_sheet",
    "cosine_figure",
    "cosines",
    "feature_cosines",
    "interval_table",
    "retrieval_page",
    "retrieval_sheet",
    "training_curves",
    "write_report",
]
