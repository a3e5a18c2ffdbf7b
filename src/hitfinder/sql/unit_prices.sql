-- unit_prices: what a unit and an order of each SKU brought, and what its signals do not count.
-- Grain: sku_id.
-- Reads: skus, reports.
with
current_reports as (
    select * from reports
    where superseded_at is null
),

summed as (
    select
        sku_id,
        sum(revenue) filter (where units is not null) as unit_revenue,
        sum(units) filter (where revenue is not null) as units,
        sum(revenue) filter (where orders is not null) as order_revenue,
        sum(orders) filter (where revenue is not null) as orders,
        count(revenue) as revenue_rows,
        count(refunds) as refund_rows,
        count(spend) as spend_rows,
        count(impressions) as impression_rows,
        count(coalesce(units, orders)) as unit_rows,
        count(orders) as order_rows
    from current_reports
    group by sku_id
),

priced as (
    select
        skus.sku_id,
        cast(summed.unit_revenue as double) / nullif(summed.units, 0) as unit_price,
        cast(summed.order_revenue as double) / nullif(summed.orders, 0) as order_value,
        concat_ws(
            ', ',
            case when summed.revenue_rows = 0 then 'revenue' end,
            case when summed.refund_rows = 0 then 'refunds' end,
            case when summed.unit_rows = 0 then 'units' end,
            case when summed.order_rows = 0 then 'orders' end,
            case when summed.spend_rows = 0 then 'spend' end,
            case when summed.spend_rows = 0 and summed.impression_rows = 0 then 'impressions' end
        ) as unmeasured
    from skus
    left join summed on skus.sku_id = summed.sku_id
)

select * from priced
