"""What costs are called where one of them is not known, in each language."""

from __future__ import annotations

__all__ = ["name_costs"]

NAMES = {
    "en": {
        "platform_fee": "platform fee",
        "payment_fee": "payment fee",
        "commission": "commission",
        "coupons": "coupons",
        "shipping": "shipping",
        "freight_insurance": "freight insurance",
        "return_handling": "return handling",
        "resellable": "resale of what came back",
        "unit_cost": "cost of goods",
        "spend": "ad spend",
        "refunds": "refunds",
        "revenue": "revenue",
        "units": "units",
        "orders": "orders",
        "cost_of_goods": "cost of goods",
    },
    "zh": {
        "platform_fee": "平台扣点",
        "payment_fee": "支付手续费",
        "commission": "达人佣金",
        "coupons": "优惠与补贴",
        "shipping": "运费",
        "freight_insurance": "运费险",
        "return_handling": "退货处理",
        "resellable": "退货可再售",
        "unit_cost": "货品成本",
        "spend": "投放费用",
        "refunds": "退款",
        "revenue": "销售额",
        "units": "件数",
        "orders": "订单",
        "cost_of_goods": "货品成本",
    },
}


def name_costs(unknown_costs: str, language: str) -> str:
    """Name costs in a reader's words; `unknown_costs` are their fields, joined by ", ".

    >>> name_costs("unit_cost, shipping", "zh")
    '货品成本、运费'
    """
    names = NAMES[language]
    return (", " if language == "en" else "、").join(names.get(name, name) for name in unknown_costs.split(", "))
