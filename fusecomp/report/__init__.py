"""Reports: tables, figures and pages of what was measured, and comparisons of two runs."""

from typing import TYPE_CHECKING

from fusecomp.lazy import lazily

if TYPE_CHECKING:
    from fusecomp.report._ablation_table import ablation_table
    from fusecomp.report._bootstrap import Interval, bootstrap, interval_table
    from fusecomp.report._compare import Comparison, compare
    from fusecomp.report._comparison_table import comparison_table
    from fusecomp.report._sheets import contact_sheet, retrieval_sheet
    from fusecomp.report._table import Table
else:
    __getattr__ = lazily(
        __name__,
        {
            "Comparison": "fusecomp.report._compare",
            "Interval": "fusecomp.report._bootstrap",
            "Table": "fusecomp.report._table",
            "ablation_table": "fusecomp.report._ablation_table",
            "bootstrap": "fusecomp.report._bootstrap",
            "compare": "fusecomp.report._compare",
            "comparison_table": "fusecomp.report._comparison_table",
            "contact_sheet": "fusecomp.report._sheets",
            "interval_table": "fusecomp.report._bootstrap",
            "retrieval_sheet": "fusecomp.report._sheets",
        },
    )

__all__ = [
    "Comparison",
    "Interval",
    "Table",
    "ablation_table",
    "bootstrap",
    "compare",
    "comparison_table",
    "contact_sheet",
    "interval_table",
    "retrieval_sheet",
]
