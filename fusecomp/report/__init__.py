"""Reports: tables, figures and pages of what was measured."""

from fusecomp.report._ablation_table import ablation_table
from fusecomp.report._comparison_table import comparison_table
from fusecomp.report._cosine_figure import cosine_figure
from fusecomp.report._curves import training_curves
from fusecomp.report._interval_table import interval_table
from fusecomp.report._page import retrieval_page
from fusecomp.report._report import write_report
from fusecomp.report._sheets import contact_sheet, retrieval_sheet
from fusecomp.report._table import Table

__all__ = [
    "Table",
    "ablation_table",
    "comparison_table",
    "contact_sheet",
    "cosine_figure",
    "interval_table",
    "retrieval_page",
    "retrieval_sheet",
    "training_curves",
    "write_report",
]
