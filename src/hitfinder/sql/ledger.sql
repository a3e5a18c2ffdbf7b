-- ledger: revenue, refunds and every cost of each report, with what is left. Each line is rounded by itself to four
-- decimals, and the contribution is the sum of the rounded lines: sums over any groups reconcile with the signals.
-- A line that needs what was not counted or given is NULL; the contribution is the sum of those that are known.
-- Grain: sku_id, period_start, channel, creative_id.
-- Reads: reports, catalog, cost_rates (sku_id, a column for each rate), unit_economics (sku_id, unit_price, order_value).
with
current_reports as (
    select * from reports
    where superseded_at is null
),

rated as (
    select
        current_reports.sku_id,
        current_reports.period_start,
        current_reports.channel,
        current_reports.creative_id,
        catalog.batch_id,
        catalog.style_id,
        catalog.category,
        current_reports.impressions,
        current_reports.orders,
        current_reports.units,
        current_reports.revenue,
        current_reports.refunds,
        current_reports.spend,
        current_reports.revenue - coalesce(current_reports.refunds, 0) as net_revenue,
        coalesce(current_reports.units, current_reports.orders) as goods_sold,
        cast(current_reports.refunds as double) / unit_economics.order_value as orders_back,
        cast(current_reports.refunds as double) / unit_economics.unit_price as goods_back,
        cost_rates.platform_fee as platform_rate,
        cost_rates.commission as commission_rate,
        cost_rates.payment_fee as payment_rate,
        cost_rates.coupons as coupon_rate,
        cost_rates.shipping as order_shipping,
        cost_rates.freight_insurance as order_insurance,
        cost_rates.return_handling as back_handling,
        cost_rates.resellable,
        cost_rates.unit_cost,
        cost_rates.ad_cost
    from current_reports
    inner join catalog on current_reports.sku_id = catalog.sku_id
    inner join cost_rates on current_reports.sku_id = cost_rates.sku_id
    inner join unit_economics on current_reports.sku_id = unit_economics.sku_id
),

lines as (
    select
        sku_id,
        period_start,
        channel,
        creative_id,
        batch_id,
        style_id,
        category,
        impressions,
        orders,
        units,
        revenue,
        refunds,
        net_revenue,
        cast(cast(net_revenue as double) * platform_rate as decimal(18, 4)) as platform_fee,
        cast(cast(net_revenue as double) * commission_rate as decimal(18, 4)) as commission,
        cast(cast(revenue as double) * payment_rate as decimal(18, 4)) as payment_fee,
        cast(cast(revenue as double) * coupon_rate as decimal(18, 4)) as coupons,
        cast(orders * order_shipping as decimal(18, 4)) as shipping,
        cast(orders * order_insurance as decimal(18, 4)) as freight_insurance,
        cast(orders_back * back_handling as decimal(18, 4)) as return_handling,
        cast(
            goods_sold * unit_cost - coalesce(goods_back * resellable * unit_cost, 0) as decimal(18, 4)
        ) as cost_of_goods,
        coalesce(spend, cast(impressions * ad_cost / 1000 as decimal(18, 4))) as ad_spend
    from rated
),

settled as (
    select
        lines.*,
        case
            when coalesce(net_revenue, refunds, cost_of_goods, shipping, freight_insurance, ad_spend) is not null
                then
                    coalesce(net_revenue, -refunds, 0) - coalesce(platform_fee, 0) - coalesce(commission, 0)
                    - coalesce(payment_fee, 0) - coalesce(coupons, 0) - coalesce(shipping, 0)
                    - coalesce(freight_insurance, 0) - coalesce(return_handling, 0) - coalesce(cost_of_goods, 0)
                    - coalesce(ad_spend, 0)
        end as contribution
    from lines
)

select * from settled
