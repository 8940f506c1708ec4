"""Reports: tables and pictures of what was measured."""

from fusecomp.report._sheets import contact_sheet, retrieval_sheet
from fusecomp.report._tables import ablation_table

__all__ = ["ablation_table", "contact_sheet", "retrieval_sheet"]
