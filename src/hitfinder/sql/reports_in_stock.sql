-- reports_in_stock: the reports, of which what a page without stock was shown, drew and cost counts nothing. What had
-- been sold before, and what comes back of it, counts.
-- Grain: sku_id, period_start, channel, creative_id, known_at.
-- Reads: reports, last_stock_outs (stock_outs at the call's moment).
with
told as (
    select
        reports.*,
        coalesce(epoch(reports.period_start) < last_stock_outs.sold_out_second, true) as is_in_stock
    from reports
    left join last_stock_outs on reports.sku_id = last_stock_outs.sku_id
),

masked as (
    select
        sku_id,
        period_start,
        channel,
        creative_id,
        known_at,
        superseded_at,
        -- What was not measured stays so.
        case when is_in_stock or impressions is null then impressions else 0 end as impressions,
        case when is_in_stock or visitors is null then visitors else 0 end as visitors,
        case when is_in_stock or clicks is null then clicks else 0 end as clicks,
        case when is_in_stock or favorites is null then favorites else 0 end as favorites,
        case when is_in_stock or carts is null then carts else 0 end as carts,
        orders,
        units,
        revenue,
        refunds,
        case when is_in_stock or spend is null then spend else 0 end as spend
    from told
)

select * from masked
