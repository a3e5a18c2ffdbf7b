"""One budget with one target: how to split a week's money over SKUs and channels."""

from hitfinder.budget.plan import PLAN_COLUMNS, Budget, split_budget

__all__ = ["PLAN_COLUMNS", "Budget", "split_budget"]
