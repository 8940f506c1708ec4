"""Reports: tables, figures and pages of what was measured."""

from fusecomp.report._cosine_figure import cosine_figure
from fusecomp.report._model_card import write_model_card
from fusecomp.report._retrieval_page import PageOptions, retrieval_page
from fusecomp.report._score_tables import ablation_table, comparison_table, interval_table
from fusecomp.report._sheets import contact_sheet, retrieval_sheet
from fusecomp.report._table import Table
from fusecomp.report._training_curves import training_curves
from fusecomp.report._write_report import write_report

__all__ = [
    "PageOptions",
    "Table",
    "ablation_table",
    "comparison_table",
    "contact_sheet",
    "cosine_figure",
    "interval_table",
    "retrieval_page",
    "retrieval_sheet",
    "training_curves",
    "write_model_card",
    "write_report",
]
