"""Returns before they arrive: each SKU's final return share and the refunds still to come, with intervals."""

from hitfinder.refunds.model import FORECAST_COLUMNS, RefundModel, fit_refunds, returns

__all__ = ["FORECAST_COLUMNS", "RefundModel", "fit_refunds", "returns"]
