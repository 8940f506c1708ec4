"""Reports: tables and pictures of what was measured."""

from typing import TYPE_CHECKING

from fusecomp.lazy import lazily
from fusecomp.report._tables import ablation_table

if TYPE_CHECKING:
    from fusecomp.report._report import write_report
    from fusecomp.report._sheets import contact_sheet, retrieval_sheet
else:
    __getattr__ = lazily(
        __name__,
        {
            "contact_sheet": "fusecomp.report._sheets",
            "retrieval_sheet": "fusecomp.report._sheets",
            "write_report": "fusecomp.report._report",
        },
    )

__all__ = ["ablation_table", "contact_sheet", "retrieval_sheet", "write_report"]
